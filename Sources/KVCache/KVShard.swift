package import Tensors

/// The part of every page that one process keeps where processes shard the keys of a request. Entry t belongs to owner
/// `(t / run) mod owners`; a process keeps the entries of some of the owners, in ascending order.
///
/// Pages begin at multiples of `run · owners`, so an entry's position in its page determines its owner.
package struct KVShard: Sendable, Equatable {
    /// The number of entries in a page.
    package let pageSize: Int
    /// The number of consecutive entries that belong to one owner.
    package let run: Int
    /// The number of entries of a page that are kept.
    package let entriesPerPage: Int
    /// The index of each run of a page among the runs that are kept; -1 if the run is not kept.
    private let places: [Int32]

    /// The owners among which entries are divided, and those whose entries a process keeps.
    package struct Owners: Sendable, Equatable {
        /// The number of consecutive entries that belong to the same owner.
        package let run: Int
        package let count: Int
        package let kept: Set<Int>

        package init(run: Int, count: Int, kept: Set<Int>) {
            self.run = run
            self.count = count
            self.kept = kept
        }
    }

    /// Creates a shard of pages.
    ///
    /// - Parameters:
    ///   - pageSize: the number of entries in a page: a power of two and a multiple of the owners' `run · count`.
    ///   - owners: the owners whose entries are kept; all entries are kept when `nil`.
    package init(pageSize: Int, _ owners: Owners?) {
        let owners = owners ?? Owners(run: pageSize, count: 1, kept: [0])
        precondition(
            Self.isPossible(pageSize: pageSize, run: owners.run, owners: owners.count)
                && owners.kept.allSatisfy { $0 < owners.count },
            "pages of \(pageSize) entries for \(owners.count) owners of runs of \(owners.run)")
        self.pageSize = pageSize
        run = owners.run
        var next: Int32 = 0
        places = (0..<pageSize / owners.run).map { number in
            guard owners.kept.contains(number % owners.count) else { return -1 }
            defer { next += 1 }
            return next
        }
        entriesPerPage = Int(next) * run
    }

    /// Returns true if pages can be divided among owners: their size is a power of two and a multiple of
    /// `run · owners`.
    package static func isPossible(pageSize: Int, run: Int, owners: Int) -> Bool {
        let legal = 1...max(pageSize, 1)
        return pageSize & (pageSize - 1) == 0 && legal.contains(run) && legal.contains(owners)
            && pageSize % (run * owners) == 0
    }

    /// Returns the index at which a lane of this shard keeps the entry of a slot; `nil` if the entry is not kept.
    ///
    /// - Parameter slot: the page's number times `pageSize`, plus the entry's position in the page.
    package func entry(of slot: Int) -> Int? {
        let (page, entry) = slot.quotientAndRemainder(dividingBy: pageSize)
        let place = Int(places[entry / run])
        return place < 0 ? nil : page * entriesPerPage + place * run + entry % run
    }

    /// Returns a page map that leads from a request's entries to those of this shard. Its pages are as small as one
    /// run; runs that are not kept have page -1.
    package func map(_ pages: [Int32], _ scratch: Scratch) -> PageMap {
        let runs = scratch.indices(pages.count * places.count)
        let keptRuns = Int32(entriesPerPage / run)
        for (index, page) in pages.enumerated() {
            for (number, place) in places.enumerated() {
                runs[index * places.count + number] = place < 0 ? -1 : page * keptRuns + place
            }
        }
        return PageMap(pages: runs, shift: run.trailingZeroBitCount)
    }
}
