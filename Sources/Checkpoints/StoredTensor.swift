/// Locates one tensor of a checkpoint in its file. It uses no memory for the values, but keeps the file open.
package struct StoredTensor: Sendable {
    package let name: String
    package let type: StoredType
    /// The extents from the slowest to the fastest, as stored: row-major. It is empty for a single number.
    package let shape: [Int]
    /// The file that holds the tensor.
    package let file: SafeTensorsFile
    /// The byte range of the values in the file.
    package let range: Range<Int>

    /// The values, little-endian, aligned for their type, `byteCount` long.
    ///
    /// It points into read-only memory that is valid as long as `file` is referenced; keep this value or its file alive
    /// while the pointer is in use. Writing through it ends the process.
    package var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(rebasing: file.mapping.bytes[range]) }

    package var byteCount: Int { range.count }
    /// The product of the extents.
    package var elementCount: Int { range.count / type.bytes }

    /// Returns an error about this tensor.
    package func refusal(_ problem: String, advice: String) -> CheckpointError {
        CheckpointError(file: file.path, subject: .tensor(name), problem: problem, advice: advice)
    }
}

extension StoredTensor {
    /// Requires that the tensor has the shape that config.json asks for.
    package func require(shape wanted: [Int]) throws(CheckpointError) {
        if shape != wanted {
            throw refusal(
                "has shape \(shape), but config.json asks for \(wanted)",
                advice: "config.json and the weights belong to different models, or one of them is damaged")
        }
    }
}
