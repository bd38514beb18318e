import Synchronization

/// Describes work whose units are independent: rows, columns or heads of an operation's result.
///
/// The thread that has a unit computes all of the unit's numbers in the documented order. So the bits depend neither on
/// how the work is split nor on the number of threads.
package protocol ParallelWork {
    /// Computes some units of the work.
    ///
    /// - Parameters:
    ///   - kernels: the kernels of a single thread.
    ///   - scratch: the scratch of the thread that computes.
    func compute(_ units: Range<Int>, _ kernels: Kernels, _ scratch: Scratch)
}

extension ParallelWork {
    /// Computes as above, with the operands behind a pointer: a thread needs only a type and an address, and passing
    /// them allocates nothing.
    fileprivate static func compute(
        _ units: Range<Int>, of operands: UnsafeRawPointer, _ kernels: Kernels, _ scratch: Scratch
    ) {
        unsafe operands.assumingMemoryBound(to: Self.self).pointee.compute(units, kernels, scratch)
    }
}

/// Says how work may be split into parts.
package struct WorkSplit {
    /// The number of units in the work.
    package let units: Int
    /// All parts but the last are multiples of this many units.
    package let step: Int
    /// A part has at least this many units if there are still enough parts for every thread, so that the fixed cost of
    /// a part is small.
    package let least: Int

    package init(units: Int, step: Int = 1, least: Int = 1) {
        self.units = units
        self.step = step
        self.least = least
    }

    private var steps: Int { (units + step - 1) / step }

    /// Returns the number of parts, several per thread if they need not be too small: a delayed thread then takes
    /// fewer.
    func parts(threads: Int) -> Int { min(steps, max(threads, min(4 * threads, units / least))) }

    func units(ofPart part: Int, of parts: Int) -> Range<Int> {
        min(steps * part / parts * step, units)..<min(steps * (part + 1) / parts * step, units)
    }
}

/// Manages the threads that work inside one rank: the rank's own thread, which leads, and helpers.
///
/// Only the leader runs the model. An operation that is large enough is split into parts, and every free thread takes
/// the next part. Between operations helpers spin for a while and then sleep.
package final class Team: @unchecked Sendable {
    /// The number of threads, the leader included.
    package let threads: Int
    /// The kernels of a single thread.
    private let kernels: Kernels
    /// The number of operations that were begun; helpers wait for it.
    private let begun: EventCounter
    /// The number of parts that were done; the leader waits for it.
    private let done: EventCounter
    /// The number of parts of the present operation that no thread has taken; there are none if it is not positive.
    private let left = Atomic(0)
    private let isDismissed = Atomic(false)
    /// The memory of each thread, the leader's first.
    private let scratches: [Scratch]
    /// The number of helpers that have come.
    private let helpers = Atomic(0)
    /// The present operation. Only the leader writes it, when no part of the previous operation is unfinished; other
    /// threads read it after they have taken a part.
    private var operation: Operation?
    /// The number of parts of all operations so far.
    private var parts = 0

    @safe private struct Operation {
        let work: any ParallelWork.Type
        /// The pointer is valid until all parts are done.
        let operands: UnsafeRawPointer
        let kernels: Kernels
        let cut: WorkSplit
        let parts: Int
    }

    /// Creates a team.
    ///
    /// - Parameters:
    ///   - kernels: the kernels of a single thread.
    ///   - threads: the number of threads. One of them leads; each of the others must call `help`.
    ///   - spins: whether waiting threads spin before they sleep; false if threads outnumber cores.
    ///   - scratchBytes: the address space of each thread. Kernels use a few MiB, and more only for the keys that a row
    ///     attends to.
    /// - Throws: when the system does not reserve that address space.
    package init(
        _ kernels: Kernels, threads: Int, spins: Bool, scratchBytes: Int = Scratch.helperBytes
    ) throws(MemoryError) {
        precondition(threads > 0 && kernels.team == nil, "a team of \(threads) threads")
        self.kernels = kernels
        self.threads = threads
        var scratches: [Scratch] = []
        for _ in 0..<threads { scratches.append(try Scratch(reserving: scratchBytes)) }
        self.scratches = scratches
        begun = EventCounter(period: 1, spins: spins ? kernels.tuning.spins : 0)
        done = EventCounter(period: 1, spins: spins ? kernels.tuning.spins : 0)
    }

    /// The number of operations that were shared so far.
    package var operations: Int { begun.value }

    // MARK: - The leader

    /// Splits the work among all threads, and returns when it is done. Only the leader may call it.
    ///
    /// - Parameters:
    ///   - profile: the numerics profile in which all parts are computed.
    ///   - cost: the cost of all units, in the unit of `Tuning.minParallelWork`.
    /// - Returns: false if the work is too small to share; then nothing was computed.
    func share(_ work: some ParallelWork, _ cut: WorkSplit, in profile: NumericsProfile, cost: Int) -> Bool {
        let parts = cut.parts(threads: threads)
        guard threads > 1, parts > 1, cost >= kernels.tuning.minParallelWork else { return false }
        unsafe withUnsafePointer(to: work) { operands in
            unsafe operation = Operation(
                work: type(of: work), operands: operands, kernels: kernels.computing(in: profile), cut: cut,
                parts: parts)
            self.parts += parts
            left.store(parts, ordering: .releasing)
            begun.advance()
            takeParts(scratches[0])
            done.wait(for: self.parts)
        }
        return true
    }

    /// Ends the helpers' work. The leader calls it when it has nothing more to share.
    package func dismiss() {
        isDismissed.store(true, ordering: .releasing)
        begun.advance()
    }

    // MARK: - Helpers

    /// Computes parts of what the leader shares, until the team is dismissed. Each helper's thread calls it once.
    package func help() {
        let scratch = scratches[helpers.add(1, ordering: .relaxed).newValue]
        var seen = 0
        while true {
            begun.wait(for: seen + 1)
            // Read before parts are taken, so that an operation which begins meanwhile is found by the next iteration, and
            // before the flag, because a dismissal counts as well.
            seen = begun.value
            if isDismissed.load(ordering: .acquiring) { return }
            takeParts(scratch)
        }
    }

    private func takeParts(_ scratch: Scratch) {
        while true {
            let taken = left.subtract(1, ordering: .acquiringAndReleasing).oldValue
            if taken <= 0 { return }
            let operation = operation!
            let units = operation.cut.units(ofPart: operation.parts - taken, of: operation.parts)
            unsafe operation.work.compute(units, of: operation.operands, operation.kernels, scratch)
            done.advance()
        }
    }
}

extension Kernels {
    /// Shares the work among this rank's team, if there is a team and the work is large enough.
    ///
    /// - Returns: true if the work is done.
    package func share(_ work: some ParallelWork, _ cut: WorkSplit, cost: Int) -> Bool {
        guard let team, team.share(work, cut, in: profile, cost: cost) else { return false }
        countShared()
        return true
    }
}
