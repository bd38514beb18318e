package import KVCache
package import Parallelism
package import Tensors

/// The keys that are gathered for a step, where processes divide the cache: copies of all entries of some requests' pages,
/// wherever they are kept, one layer at a time.
package struct GatheredKeys {
    /// Where the copies are: one for the ranks of a data group and stage in this process.
    package let store: CacheStore
    /// The rank's own, for the entries of its own rows before they go where they are kept; an entry for each row.
    package let staging: CacheStore
    /// The slot of `staging` for each entry that own rows store, for each group of key sets.
    package let stagingSlots: [Indices]
    /// The pages that are gathered, each once.
    private let pages: [Page]
    /// Where in `store` a page is.
    private let places: [Int32: Int32]

    /// A page of a request whose rows read all keys where they are computed.
    package struct Page {
        package let number: Int32
        /// How many of its tokens earlier steps have stored.
        package let known: Int

        package init(number: Int32, known: Int) {
            self.number = number
            self.known = known
        }
    }

    /// Entries sent at once, but at least a page: bounds what is on its way.
    private static let entriesAtOnce = 4096

    /// - Parameter pages: may name a page more than once, as requests share them; `store` must have room for all.
    package init(_ pages: [Page], store: CacheStore, staging: CacheStore, stagingSlots: [Indices]) {
        self.pages = Self.once(pages)
        places = Dictionary(uniqueKeysWithValues: self.pages.enumerated().map { ($1.number, Int32($0)) })
        precondition(places.count <= store.pages, "\(places.count) gathered pages where \(store.pages) find room")
        (self.store, self.staging, self.stagingSlots) = (store, staging, stagingSlots)
    }

    /// Each page once, in the order in which it was first named.
    private static func once(_ pages: [Page]) -> [Page] {
        var (once, places) = ([Page](), [Int32: Int]())
        for page in pages {
            if let place = places[page.number] {
                // Requests share what is known of a page; only the one that writes it may know less.
                once[place] = Page(number: page.number, known: max(once[place].known, page.known))
            } else {
                places[page.number] = once.count
                once.append(page)
            }
        }
        return once
    }

    /// How many keys the ranks of a data group send when pages are gathered; see `LayoutCost`.
    package static func sent(_ pages: [Page], by ranks: Int, _ kvSharding: KVSharding) -> [Int] {
        (0..<ranks).map { member in entries(once(pages)[...], ofMember: member, kvSharding, tokensPerEntry: 1) }
    }

    /// The known entries of some pages that a rank of the data group sends: where several groups of ranks own all keys,
    /// the first does it.
    private static func entries(
        _ pages: ArraySlice<Page>, ofMember member: Int, _ kvSharding: KVSharding, tokensPerEntry: Int
    ) -> Int {
        guard member < kvSharding.ranks else { return 0 }
        return pages.reduce(0) { $0 + kvSharding.count(of: $1.known / tokensPerEntry, for: member) }
    }

    /// Where a request's entries are while they are gathered.
    package func map(_ pages: [Int32], group: Int, _ scratch: Scratch) -> PageMap {
        let numbers = scratch.indices(pages.count)
        numbers.copy(pages.map { places[$0]! })
        return PageMap(pages: numbers, shift: store.format.groups[group].shift)
    }

    /// Stores copies of entries of gathered pages.
    ///
    /// - Returns: whether they can be stored; see `CacheStore.store`.
    func store(_ rows: HostRows, _ set: KeySetID) -> Bool { store.store(rows, set, pages: places) }

    /// Brings the entries of a key set that earlier steps have stored. Each is sent by one rank that owns it, a few pages
    /// at a time.
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
