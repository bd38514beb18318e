import Synchronization

/// Work of which any units can be done alone: rows, columns or heads of what an operation computes.
///
/// Each number of a result is computed wholly by whoever has its unit, in the documented order, so bits depend neither
/// on where work is cut nor on how many threads do it.
package protocol ParallelWork {
    /// Does some units of the work.
    ///
    /// - Parameters:
    ///   - kernels: of one thread.
    ///   - scratch: of the thread that does it.
    func compute(_ units: Range<Int>, _ kernels: Kernels, _ scratch: Scratch)
}

extension ParallelWork {
    /// The same with the operands behind a pointer: a type and an address are all that a thread needs to be told, and
    /// telling it allocates nothing.
    fileprivate static func compute(
        _ units: Range<Int>, of operands: UnsafeRawPointer, _ kernels: Kernels, _ scratch: Scratch
    ) {
        unsafe operands.assumingMemoryBound(to: Self.self).pointee.compute(units, kernels, scratch)
    }
}

/// How work may be cut.
package struct WorkSplit {
    /// What there is to do.
    package let units: Int
    /// All parts but the last are multiples of this.
    package let step: Int
    /// Units of a part, at least, where that leaves a part for every thread: what is done once for each part should
    /// not show.
    package let least: Int

    package init(units: Int, step: Int = 1, least: Int = 1) {
        self.units = units
        self.step = step
        self.least = least
    }

    private var steps: Int { (units + step - 1) / step }

    /// Several for each thread where parts can be so small: who begins late, or is held up, then takes fewer of them.
    func parts(threads: Int) -> Int { min(steps, max(threads, min(4 * threads, units / least))) }

    func units(ofPart part: Int, of parts: Int) -> Range<Int> {
        min(steps * part / parts * step, units)..<min(steps * (part + 1) / parts * step, units)
    }
}

/// The threads that work inside one rank: the rank's own, which leads, and helpers.
///
/// The leader goes through the model alone. An operation that is worth it is cut into parts, and whoever is free takes
/// the next one. Between operations helpers look for the next one for a while, and then sleep.
package final class Team: @unchecked Sendable {
    /// The leader and its helpers.
    package let threads: Int
    /// Of one thread.
    private let kernels: Kernels
    /// Of operations that were begun, for helpers to wait for.
    private let begun: EventCounter
    /// Of parts that were done, for the leader to wait for.
    private let done: EventCounter
    /// Parts of the present operation that nobody has taken; none where it is not positive.
    private let left = Atomic(0)
    private let isDismissed = Atomic(false)
    private let leadersScratch: Scratch
    private let scratchBytes: Int
    /// The present operation. Only the leader writes it, while no part of one before is left to be done; others read it
    /// when they have taken a part.
    private var operation: Operation?
    /// Parts of all operations so far.
    private var parts = 0

    @safe private struct Operation {
        let work: any ParallelWork.Type
        /// Valid until all parts are done.
        let operands: UnsafeRawPointer
        let cut: WorkSplit
        let parts: Int
    }

    /// - Parameters:
    ///   - kernels: of one thread.
    ///   - threads: one of them will lead; for each of the others somebody calls `help`.
    ///   - spins: whether threads that wait look for a while before they sleep: where they do not outnumber the cores.
    ///   - scratchBytes: address space of each thread; what kernels ask for is a few MiB, and more only for the keys that
    ///     a row attends to.
    package init(_ kernels: Kernels, threads: Int, spins: Bool, scratchBytes: Int = Scratch.helperBytes) {
        precondition(threads > 0 && kernels.team == nil, "a team of \(threads) threads")
        self.kernels = kernels
        self.threads = threads
        self.scratchBytes = scratchBytes
        leadersScratch = Scratch(bytes: scratchBytes)
        begun = EventCounter(period: 1, spins: spins ? kernels.tuning.spins : 0)
        done = EventCounter(period: 1, spins: spins ? kernels.tuning.spins : 0)
    }

    /// Operations that were shared so far.
    package var operations: Int { begun.value }

    // MARK: - The leader

    /// Has all threads do the work, and returns when it is done. To be called by the leader.
    ///
    /// - Parameter cost: of all units, counted as for `Tuning.minParallelWork`.
    /// - Returns: false where the work is too little to share, and was not done.
    func share(_ work: some ParallelWork, _ cut: WorkSplit, cost: Int) -> Bool {
        let parts = cut.parts(threads: threads)
        guard threads > 1, parts > 1, cost >= kernels.tuning.minParallelWork else { return false }
        unsafe withUnsafePointer(to: work) { operands in
            unsafe operation = Operation(work: type(of: work), operands: operands, cut: cut, parts: parts)
            self.parts += parts
            left.store(parts, ordering: .releasing)
            begun.advance()
            takeParts(leadersScratch)
            done.wait(for: self.parts)
        }
        return true
    }

    /// Lets the helpers go. To be called by the leader, which has nothing to share any more.
    package func dismiss() {
        isDismissed.store(true, ordering: .releasing)
        begun.advance()
    }

    // MARK: - Helpers

    /// Does parts of what the leader shares, until the team is dismissed. To be called by a helper's thread.
    package func help() {
        let scratch = Scratch(bytes: scratchBytes)
        var seen = 0
        while true {
            begun.wait(for: seen + 1)
            if isDismissed.load(ordering: .acquiring) { return }
            // Before looking for parts: an operation that begins meanwhile is then found by the next turn.
            seen = begun.value
            takeParts(scratch)
        }
    }

    private func takeParts(_ scratch: Scratch) {
        while true {
            let taken = left.subtract(1, ordering: .acquiringAndReleasing).oldValue
            if taken <= 0 { return }
            let operation = operation!
            let units = operation.cut.units(ofPart: operation.parts - taken, of: operation.parts)
            unsafe operation.work.compute(units, of: operation.operands, kernels, scratch)
            done.advance()
        }
    }
}

extension Kernels {
    /// Has this rank's team do the work, where there is a team and the work is worth it.
    ///
    /// - Returns: whether it is done.
    package func share(_ work: some ParallelWork, _ cut: WorkSplit, cost: Int) -> Bool {
        guard let team, team.share(work, cut, cost: cost) else { return false }
        countShared()
        return true
    }
}
