/// Owns a small constant row of F32: a norm's weight, a router's bias. It is immutable, so ranks share it.
package final class Vector: @unchecked Sendable {
    private let memory: Buffer
    package let count: Int

    package convenience init(_ values: [Float]) {
        unsafe self.init(count: values.count) { target in
            for (index, value) in values.enumerated() { unsafe target[index] = value }
        }
    }

    /// Creates a vector of `count` numbers that `fill` writes.
    package init(count: Int, _ fill: (UnsafeMutablePointer<Float>) -> Void) {
        self.count = count
        memory = Buffer(bytes: count * MemoryLayout<Float>.stride)
        unsafe fill(memory.pointer.bindMemory(to: Float.self, capacity: count))
    }

    /// The values as one row, which is valid as long as this vector lives and must not be written to.
    package var view: View {
        unsafe View(memory.pointer.assumingMemoryBound(to: Float.self), rows: 1, columns: count)
    }
}
