/// A rank's reusable memory: what a layer needs for a moment is taken from here and given back by resetting to a mark.
///
/// It reserves address space once and touches only what is used, so nothing is allocated inside a step. One thread.
package final class Scratch {
    private let memory: Buffer
    private var used = 0

    /// - Parameter bytes: address space to reserve; it becomes resident only as it is used.
    package init(bytes: Int = 1 << 36) { memory = Buffer(bytes: bytes) }

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
        precondition(used + bytes <= memory.bytes, "a step needs more than \(memory.bytes) bytes of scratch")
        let start = unsafe memory.pointer + used
        used += bytes
        return unsafe start.bindMemory(to: Element.self, capacity: count)
    }
}
