/// Assigns ranks to processes: runs of consecutive ranks, as even as possible.
package struct Placement: Sendable, Equatable {
    package let ranks: Int
    package let processes: Int

    package init(ranks: Int, processes: Int) {
        precondition(ranks > 0 && processes > 0, "\(ranks) ranks in \(processes) processes")
        self.ranks = ranks
        self.processes = processes
    }

    /// Returns the ranks of a process, which may be none if there are more processes than ranks.
    package func ranks(of process: Int) -> Range<Int> {
        first(of: process)..<first(of: process + 1)
    }

    private func first(of process: Int) -> Int { (ranks * process + processes - 1) / processes }

    package func process(of rank: Int) -> Int {
        precondition((0..<ranks).contains(rank), "rank \(rank) of \(ranks)")
        return rank * processes / ranks
    }
}
