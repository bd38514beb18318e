/// Locates one tensor of a checkpoint in its file. It uses no memory for the values, but keeps the file open.
package struct StoredTensor: Sendable {
    package let name: String
    package let type: StoredType
    /// Lists the extents from the slowest to the fastest, as stored: row-major. It is empty for a single number.
    package let shape: [Int]
    /// Is the file that holds the tensor.
    package let file: SafeTensorsFile
    /// Is the byte range of the values in the file.
    package let range: Range<Int>

    /// Gives the values, little-endian, aligned for their type, `byteCount` long.
    ///
    /// It points into read-only memory that is valid as long as `file` is referenced; keep this value or its file alive
    /// while the pointer is in use. Writing through it ends the process.
    package var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(rebasing: file.mapping.bytes[range]) }

    package var byteCount: Int { range.count }
    /// Is the product of the extents.
    package var elementCount: Int { range.count / type.bytes }

    /// Returns an error about this tensor.
    package func refusal(_ problem: String, advice: String) -> CheckpointError {
        CheckpointError(file: file.path, subject: .tensor(name), problem: problem, advice: advice)
    }
}

extension StoredTensor {
    /// Returns the index and value of the first element that fails the test. The tensor must be F32.
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
