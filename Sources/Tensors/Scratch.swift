/// A rank's reusable memory: what a layer needs for a moment is taken from here and given back by resetting to a mark.
///
/// It reserves address space once and touches only what is used, so nothing is allocated inside a step. One thread.
package final class Scratch {
    private let memory: Buffer
    private var used = 0

    /// Address space that a rank and each thread that helps one reserve where nothing limits it.
    package static let rankBytes = 1 << 36
    package static let helperBytes = 1 << 34

    /// - Parameter bytes: address space to reserve; it becomes resident only as it is used. Traps when there is not so
    ///   much.
    package init(bytes: Int = rankBytes) { memory = Buffer(bytes: bytes) }

    /// - Parameter bytes: address space to reserve; it becomes resident only as it is used.
    /// - Throws: `MemoryError` when there is not so much.
    package init(reserving bytes: Int) throws(MemoryError) { memory = try Buffer(reserving: bytes) }

    package struct Mark { fileprivate let used: Int }

    package func mark() -> Mark { Mark(used: used) }

    /// Gives back everything taken since the mark.
    package func reset(to mark: Mark) {
        precondition(mark.used <= used, "scratch was already reset past this mark")
        used = mark.used
    }

    /// Rows of F32 with unspecified contents, for kernels.
    package func rows(_ rows: Int, _ columns: Int) -> View {
        unsafe View(GuardedAddress.close(take(Float.self, rows * columns)), rows: rows, columns: columns)
    }

    /// Integers with unspecified contents, for kernels.
    package func computed(_ count: Int) -> ComputedIndices {
        unsafe ComputedIndices(GuardedAddress.close(take(Int32.self, count)), count: count)
    }

    /// Rows of F32 with unspecified contents, for the host to fill.
    package func hostRows(_ rows: Int, _ columns: Int) -> HostRows {
        unsafe HostRows(take(Float.self, rows * columns), rows: rows, columns: columns)
    }

    /// Integers with unspecified contents, for the host to fill.
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
