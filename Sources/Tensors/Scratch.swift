/// A rank's stack of temporary memory: a layer takes memory from it, and gives it back by resetting to a mark.
///
/// It reserves address space once and touches only what is used, so a step allocates nothing. Only one thread may use
/// it.
package final class Scratch {
    private let memory: Buffer
    private var used = 0

    /// A rank, and each thread that helps it, reserves this much address space unless the system limits it.
    package static let rankBytes = 1 << 36
    package static let helperBytes = 1 << 34

    /// Reserves scratch. Traps when the system refuses.
    ///
    /// - Parameter bytes: the address space to reserve; it becomes resident only as it is used.
    package init(bytes: Int = rankBytes) { memory = Buffer(bytes: bytes) }

    /// Reserves scratch.
    ///
    /// - Parameter bytes: the address space to reserve; it becomes resident only as it is used.
    /// - Throws: `MemoryError` when the system refuses.
    package init(reserving bytes: Int) throws(MemoryError) { memory = try Buffer(reserving: bytes) }

    /// Reserves scratch for a benchmark: as much as a rank has or, where the system limits it, a half, a quarter and so on.
    ///
    /// - Parameters:
    ///   - least: the least that serves.
    ///   - spare: the bytes that must be left for what the benchmark fills beside it.
    /// - Throws: `MemoryError` when the system refuses the least.
    package static func forBenchmark(
        least: Int = 1 << 32, sparing spare: Int = 2 << 30
    ) throws(MemoryError) -> Scratch {
        var bytes = rankBytes
        while let problem = Buffer.problem(reserving: bytes + spare) {
            guard bytes > least else { throw problem }
            bytes /= 2
        }
        return try Scratch(reserving: bytes)
    }

    package struct Mark { fileprivate let used: Int }

    package func mark() -> Mark { Mark(used: used) }

    /// Gives back everything that was taken since the mark.
    package func reset(to mark: Mark) {
        precondition(mark.used <= used, "scratch was already reset past this mark")
        used = mark.used
    }

    /// Takes rows of F32 with unspecified contents, for kernels to fill.
    package func rows(_ rows: Int, _ columns: Int) -> View {
        unsafe View(GuardedAddress.close(take(Float.self, rows * columns)), rows: rows, columns: columns)
    }

    /// Takes integers with unspecified contents, for kernels to fill.
    package func computed(_ count: Int) -> ComputedIndices {
        unsafe ComputedIndices(GuardedAddress.close(take(Int32.self, count)), count: count)
    }

    /// Takes rows of F32 with unspecified contents, for the host to fill.
    package func hostRows(_ rows: Int, _ columns: Int) -> HostRows {
        unsafe HostRows(take(Float.self, rows * columns), rows: rows, columns: columns)
    }

    /// Takes integers with unspecified contents, for the host to fill.
    package func indices(_ count: Int) -> Indices {
        unsafe Indices(take(Int32.self, count), count: count)
    }

    @unsafe func take<Element>(_: Element.Type, _ count: Int) -> UnsafeMutablePointer<Element> {
        let bytes = (count * MemoryLayout<Element>.stride + 63) & ~63
        precondition(
            used + bytes <= memory.bytes,
            "a step needs more than the \(memory.bytes) bytes of scratch memory that could be reserved for it; lower "
                + "--chunked-prefill-size, or raise the limit of address space (ulimit -v)")
        let start = unsafe memory.pointer + used
        used += bytes
        return unsafe start.bindMemory(to: Element.self, capacity: count)
    }
}
