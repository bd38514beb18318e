package import KVCache
package import Parallelism
package import Tensors

/// The keys that key-gather attention reads where processes shard the cache: copies of all entries of some requests'
/// pages from all processes, one layer at a time.
package struct GatheredKeys {
    /// The memory of the copies. The ranks of a data group and stage in one process share it.
    package let store: CacheStore
    /// This rank's staging buffer. It has space for an entry of each own row until the entry's owners have stored it.
    package let staging: CacheStore
    /// The slots of `staging` for the entries that own rows store, for each page group.
    package let stagingSlots: [Indices]
    /// The pages to gather, each once.
    private let pages: [Page]
    /// The index in `store` of each gathered page, by its number.
    private let places: [Int32: Int32]

    /// A page of a request that uses key-gather attention.
    package struct Page {
        package let number: Int32
        /// The number of its tokens whose keys earlier steps have stored.
        package let known: Int

        package init(number: Int32, known: Int) {
            self.number = number
            self.known = known
        }
    }

    /// The number of entries that are gathered at once, but at least a page's. It bounds the size of messages and of
    /// scratch.
    private static let entriesAtOnce = 4096

    /// Creates the gathered keys of one step.
    ///
    /// - Parameter pages: the pages to gather; a page that several requests share may occur more than once. `store`
    ///   must have space for all of them.
    package init(_ pages: [Page], store: CacheStore, staging: CacheStore, stagingSlots: [Indices]) {
        self.pages = Self.once(pages)
        places = Dictionary(uniqueKeysWithValues: self.pages.enumerated().map { ($1.number, Int32($0)) })
        precondition(places.count <= store.pages, "\(places.count) gathered pages where \(store.pages) find room")
        (self.store, self.staging, self.stagingSlots) = (store, staging, stagingSlots)
    }

    /// Returns each page once, in the order in which it first occurs.
    private static func once(_ pages: [Page]) -> [Page] {
        var (once, places) = ([Page](), [Int32: Int]())
        for page in pages {
            if let place = places[page.number] {
                // Only the request that writes a page may know less of it than the others.
                once[place] = Page(number: page.number, known: max(once[place].known, page.known))
            } else {
                places[page.number] = once.count
                once.append(page)
            }
        }
        return once
    }

    /// Returns the number of keys that each rank of a data group sends when pages are gathered; `LayoutCost` predicts
    /// bytes from it.
    package static func sent(_ pages: [Page], by ranks: Int, _ kvSharding: KVSharding) -> [Int] {
        (0..<ranks).map { member in entries(once(pages)[...], ofMember: member, kvSharding, tokensPerEntry: 1) }
    }

    /// Returns the number of known entries of some pages that one rank of the data group sends. If several groups of
    /// ranks own all keys, the first group sends them.
    private static func entries(
        _ pages: ArraySlice<Page>, ofMember member: Int, _ kvSharding: KVSharding, tokensPerEntry: Int
    ) -> Int {
        guard member < kvSharding.ranks else { return 0 }
        return pages.reduce(0) { $0 + kvSharding.count(of: $1.known / tokensPerEntry, for: member) }
    }

    /// Returns the page map of a request's entries in `store`.
    ///
    /// - Parameter group: the index of a page group.
    package func map(_ pages: [Int32], group: Int, _ scratch: Scratch) -> PageMap {
        let numbers = scratch.indices(pages.count)
        numbers.copy(pages.map { places[$0]! })
        return PageMap(pages: numbers, shift: store.format.groups[group].shift)
    }

    /// Stores received copies of entries, if their pages are gathered.
    ///
    /// - Returns: false if the copies are invalid; see `CacheStore.store`.
    func store(_ rows: HostRows, _ set: KeySetID) -> Bool { store.store(rows, set, pages: places) }

    /// Gathers the entries of a key set that earlier steps have stored. Each entry is sent by one rank that owns it, a
    /// few pages at a time.
    func gather(_ set: KeySetID, from cache: CacheStore, _ seat: Seat) throws(GroupFailure) {
        let group = cache.format.groups[cache.format.group(of: set)]
        let atOnce = max(Self.entriesAtOnce / group.entriesPerPage, 1)
        for first in stride(from: 0, to: pages.count, by: atOnce) {
            let mark = seat.scratch.mark()
            defer { seat.scratch.reset(to: mark) }
            let some = pages[first..<min(first + atOnce, pages.count)]
            let counts = counts(some, group, seat)
            if counts.sum == 0 { continue }
            let slots = slots(some, group, ofMember: seat.place(along: Sharding.keys.axes), seat)
            let copies = seat.scratch.rows(slots.count, cache.copyColumns(set))
            cache.copy(slots, set, into: copies, seat.kernels, seat.scratch)
            try seat.exchangeCopies("gathered keys", along: Sharding.keys.axes, copies, counts: counts) {
                store($0, set)
            }
        }
    }

    private func counts(_ pages: ArraySlice<Page>, _ group: PageGroup, _ seat: Seat) -> Indices {
        let counts = seat.scratch.indices(seat.degree(Sharding.keys.axes))
        for member in 0..<counts.count {
            counts[member] = Int32(
                Self.entries(
                    pages, ofMember: member, seat.configuration.kvSharding, tokensPerEntry: group.tokensPerEntry))
        }
        return counts
    }

    private func slots(_ pages: ArraySlice<Page>, _ group: PageGroup, ofMember member: Int, _ seat: Seat) -> Indices {
        let kvSharding = seat.configuration.kvSharding
        guard member < kvSharding.ranks else { return seat.scratch.indices(0) }
        let owned = kvSharding.positions(of: member)
        let slots = pages.flatMap { page in
            (0..<kvSharding.count(of: page.known / group.tokensPerEntry, for: member)).map {
                page.number * Int32(group.entriesPerPage) + Int32(owned.position($0))
            }
        }
        let indices = seat.scratch.indices(slots.count)
        indices.copy(slots)
        return indices
    }
}
