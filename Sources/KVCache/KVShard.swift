package import Tensors

/// Which tokens of every page a process keeps, where processes divide the keys of a request among them: token t belongs
/// to owner `(t / run) mod owners`, and a process keeps what belongs to some of the owners, one after the other.
///
/// Pages begin at multiples of `run · owners`, so that a token's place in its page says whose it is.
package struct KVShard: Sendable, Equatable {
    package let pageSize: Int
    /// Tokens dealt together.
    package let run: Int
    /// Tokens of a page that are kept.
    package let tokensPerPage: Int
    /// For each run of a page its place among those kept here; -1 for those that are not.
    private let places: [Int32]

    /// All of every page.
    package init(wholePagesOf pageSize: Int) {
        self.init(pageSize: pageSize, run: pageSize, owners: 1, kept: [0])
    }

    /// - Parameters:
    ///   - pageSize: a multiple of `run · owners`; all three are powers of two.
    ///   - kept: whose tokens are kept.
    package init(pageSize: Int, run: Int, owners: Int, kept: Set<Int>) {
        precondition(
            Self.isPossible(pageSize: pageSize, run: run, owners: owners) && kept.allSatisfy { $0 < owners },
            "pages of \(pageSize) tokens for \(owners) owners of runs of \(run)")
        self.pageSize = pageSize
        self.run = run
        var next: Int32 = 0
        places = (0..<pageSize / run).map { number in
            guard kept.contains(number % owners) else { return -1 }
            defer { next += 1 }
            return next
        }
        tokensPerPage = Int(next) * run
    }

    /// Whether pages can be divided so.
    package static func isPossible(pageSize: Int, run: Int, owners: Int) -> Bool {
        let legal = 1...max(pageSize, 1)
        return pageSize & (pageSize - 1) == 0 && legal.contains(run) && legal.contains(owners)
            && pageSize % (run * owners) == 0
    }

    /// Where a slot is kept, or `nil`.
    ///
    /// - Parameter slot: a page times `pageSize`, and the place of a token in it.
    package func entry(of slot: Int) -> Int? {
        let (page, token) = slot.quotientAndRemainder(dividingBy: pageSize)
        let place = Int(places[token / run])
        return place < 0 ? nil : page * tokensPerPage + place * run + token % run
    }

    /// Where a request's positions are kept here. Those that are not have no entry: no page is -1.
    package func map(_ pages: [Int32], _ scratch: Scratch) -> PageMap {
        let runs = scratch.indices(pages.count * places.count)
        let keptRuns = Int32(tokensPerPage / run)
        for (index, page) in pages.enumerated() {
            for (number, place) in places.enumerated() {
                runs[index * places.count + number] = place < 0 ? -1 : page * keptRuns + place
            }
        }
        return PageMap(pages: runs, shift: run.trailingZeroBitCount)
    }
}
