package import Tensors

/// Which entries of every page a process keeps, where processes divide the keys of a request among them: entry t belongs
/// to owner `(t / run) mod owners`, and a process keeps what belongs to some of the owners, one after the other.
///
/// Pages begin at multiples of `run · owners`, so that an entry's place in its page says whose it is.
package struct KVShard: Sendable, Equatable {
    /// Entries of a page.
    package let pageSize: Int
    /// Entries that are assigned together.
    package let run: Int
    /// Entries of a page that are kept.
    package let entriesPerPage: Int
    /// For each run of a page its place among those kept here; -1 for those that are not.
    private let places: [Int32]

    /// Among whom entries are divided, and whose a process keeps.
    package struct Owners: Sendable, Equatable {
        /// Consecutive entries that belong to the same owner.
        package let run: Int
        package let count: Int
        package let kept: Set<Int>

        package init(run: Int, count: Int, kept: Set<Int>) {
            self.run = run
            self.count = count
            self.kept = kept
        }
    }

    /// - Parameters:
    ///   - pageSize: a multiple of `run · count` of the owners; all three are powers of two.
    ///   - owners: `nil` where all entries are kept.
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

    /// Whether pages can be divided so.
    package static func isPossible(pageSize: Int, run: Int, owners: Int) -> Bool {
        let legal = 1...max(pageSize, 1)
        return pageSize & (pageSize - 1) == 0 && legal.contains(run) && legal.contains(owners)
            && pageSize % (run * owners) == 0
    }

    /// Where a slot is kept, or `nil`.
    ///
    /// - Parameter slot: a page times `pageSize`, and the place of an entry in it.
    package func entry(of slot: Int) -> Int? {
        let (page, entry) = slot.quotientAndRemainder(dividingBy: pageSize)
        let place = Int(places[entry / run])
        return place < 0 ? nil : page * entriesPerPage + place * run + entry % run
    }

    /// Where a request's entries are kept here. Those that are not have no place: no page is -1.
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
