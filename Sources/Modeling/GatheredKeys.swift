package import KVCache
package import Parallelism
package import Tensors

/// The keys that come to the queries in a step, where processes divide the cache: copies of all that is kept anywhere of
/// some requests' pages, one layer at a time.
package struct GatheredKeys {
    /// Where the copies are: one for the ranks of a data group and stage in this process.
    package let store: CacheStore
    /// The rank's own, for the keys of its own rows before they go where they are kept: in its first entries.
    package let outbox: CacheStore
    /// The slots in which each own row's keys are to be kept.
    package let slots: Indices
    /// The pages that visit, each once.
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

    /// Sent at once, but at least a page: bounds what is on its way.
    private static let tokensAtOnce = 4096

    /// - Parameter pages: may name a page more than once, as requests share them; `store` must have room for all.
    package init(_ pages: [Page], store: CacheStore, outbox: CacheStore, slots: Indices) {
        self.pages = Self.once(pages)
        places = Dictionary(uniqueKeysWithValues: self.pages.enumerated().map { ($1.number, Int32($0)) })
        precondition(places.count <= store.pages, "\(places.count) pages visit where \(store.pages) find room")
        (self.store, self.outbox, self.slots) = (store, outbox, slots)
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

    /// How many keys the ranks of a data group send when pages visit; see `LayoutCost`.
    package static func sent(_ pages: [Page], by ranks: Int, _ kvSharding: KVSharding) -> [Int] {
        (0..<ranks).map { member in keys(once(pages)[...], ofMember: member, kvSharding) }
    }

    /// The known keys of some pages that a rank of the data group sends: where several groups of ranks own all keys, the
    /// first does it.
    private static func keys(_ pages: ArraySlice<Page>, ofMember member: Int, _ kvSharding: KVSharding) -> Int {
        member < kvSharding.ranks ? pages.reduce(0) { $0 + kvSharding.count(of: $1.known, for: member) } : 0
    }

    /// Where a request's positions are while its keys visit.
    package func map(_ pages: [Int32], _ scratch: Scratch) -> PageMap {
        let numbers = scratch.indices(pages.count)
        numbers.copy(pages.map { places[$0]! })
        return PageMap(pages: numbers, shift: store.format.pageSize.trailingZeroBitCount)
    }

    /// Stores copies of keys that belong to pages that visit.
    ///
    /// - Returns: whether they can be stored; see `CacheStore.store`.
    package func take(_ rows: HostRows, layer: Int) -> Bool { store.store(rows, layer: layer, pages: places) }

    /// Brings the keys that earlier steps have stored. Each is sent by one rank that owns it, a few pages at a time.
    package func come(from cache: CacheStore, layer: Int, _ seat: Seat) throws(GroupFailure) {
        let atOnce = max(Self.tokensAtOnce / store.format.pageSize, 1)
        for first in stride(from: 0, to: pages.count, by: atOnce) {
            let mark = seat.scratch.mark()
            defer { seat.scratch.reset(to: mark) }
            let some = pages[first..<min(first + atOnce, pages.count)]
            let counts = counts(some, seat)
            if counts.sum == 0 { continue }
            let slots = slots(some, ofMember: seat.place(along: Sharding.keys.axes), seat)
            let copies = seat.scratch.rows(slots.count, cache.copyColumns(layer: layer))
            cache.copy(slots, layer: layer, into: copies, seat.kernels, seat.scratch)
            try seat.exchangeCopies("gathered keys", along: Sharding.keys.axes, copies, counts: counts) {
                take($0, layer: layer)
            }
        }
    }

    private func counts(_ pages: ArraySlice<Page>, _ seat: Seat) -> Indices {
        let counts = seat.scratch.indices(seat.degree(Sharding.keys.axes))
        for member in 0..<counts.count {
            counts[member] = Int32(Self.keys(pages, ofMember: member, seat.configuration.kvSharding))
        }
        return counts
    }

    private func slots(_ pages: ArraySlice<Page>, ofMember member: Int, _ seat: Seat) -> Indices {
        let kvSharding = seat.configuration.kvSharding
        guard member < kvSharding.ranks else { return seat.scratch.indices(0) }
        let owned = kvSharding.positions(of: member)
        let slots = pages.flatMap { page in
            (0..<kvSharding.count(of: page.known, for: member)).map {
                page.number * Int32(store.format.pageSize) + Int32(owned.position($0))
            }
        }
        let indices = seat.scratch.indices(slots.count)
        indices.copy(slots)
        return indices
    }
}
