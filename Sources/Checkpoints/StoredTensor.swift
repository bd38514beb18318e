/// One tensor of a checkpoint, where it lies in its file. Costs no memory for its values; keeps the file open.
package struct StoredTensor: Sendable {
    package let name: String
    package let type: StoredType
    /// Extents from the slowest to the fastest, as stored: row-major. Empty for a single number.
    package let shape: [Int]
    /// The file that holds it.
    package let file: SafeTensorsFile
    /// Where the values lie in the file.
    package let range: Range<Int>

    /// The values, little-endian, aligned for their type, `byteCount` long.
    ///
    /// Points into read-only memory that is valid as long as `file` is referenced; keep this value or its file alive
    /// while the pointer is in use. Writing through it ends the process.
    package var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(rebasing: file.mapping.bytes[range]) }

    package var byteCount: Int { range.count }
    /// The product of the extents.
    package var elementCount: Int { range.count / type.bytes }

    /// An error about this tensor.
    package func refusal(_ problem: String, advice: String) -> CheckpointError {
        CheckpointError(file: file.path, subject: .tensor(name), problem: problem, advice: advice)
    }
}

extension StoredTensor {
    /// The first value that fails the test, and its place; the tensor must be F32.
    func firstIndex(failing test: (Float) -> Bool) -> (index: Int, value: Float)? {
        precondition(type == .f32, "only F32 is read as Float")
        let bytes = unsafe bytes
        defer { withExtendedLifetime(file) {} }
        for index in 0..<elementCount {
            let stored = unsafe bytes.load(fromByteOffset: index * MemoryLayout<UInt32>.size, as: UInt32.self)
            let value = Float(bitPattern: UInt32(littleEndian: stored))
            if !test(value) { return (index, value) }
        }
        return nil
    }
}
