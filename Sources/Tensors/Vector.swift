/// Owns a small constant row of F32: a norm's weight, a router's bias. It is immutable, so ranks share it.
package final class Vector: @unchecked Sendable {
    private let memory: Buffer
    package let count: Int

    package init(_ values: [Float]) {
        count = values.count
        memory = Buffer(bytes: values.count * MemoryLayout<Float>.stride)
        let target = unsafe memory.pointer.bindMemory(to: Float.self, capacity: values.count)
        for (index, value) in values.enumerated() { unsafe target[index] = value }
    }

    /// Gives the values as one row, which is valid as long as this vector lives and must not be written to.
    package var view: View {
        unsafe View(memory.pointer.assumingMemoryBound(to: Float.self), rows: 1, columns: count)
    }
}
