import JSON

/// Locates one tensor of a checkpoint in its file. It uses no memory for the values, but keeps the file open.
package struct StoredTensor: Sendable {
    /// The name by which a model asks for the tensor.
    package let name: String
    /// The name in the file, with the part of that tensor which this is; mostly the same as `name`. Errors have it.
    package let storedName: String
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

    /// The name in the file as messages show it.
    package var quotedName: String { storedName.quotedForMessage }

    /// Returns an error about this tensor.
    package func refusal(_ problem: String, advice: String) -> CheckpointError {
        CheckpointError(file: file.path, subject: .tensor(storedName), problem: problem, advice: advice)
    }
}

extension StoredTensor {
    /// Returns the same tensor under another name.
    package func renamed(_ name: String) -> StoredTensor {
        StoredTensor(name: name, storedName: storedName, type: type, shape: shape, file: file, range: range)
    }

    /// Returns some rows of one of the matrices that a tensor `[matrices, rows, columns]` consists of, under another name.
    package func rows(_ rows: Range<Int>, ofMatrix matrix: Int, named name: String) -> StoredTensor {
        precondition(shape.count == 3 && (0..<shape[0]).contains(matrix) && rows.upperBound <= shape[1])
        let row = shape[2] * type.bytes
        let start = range.lowerBound + (matrix * shape[1] + rows.lowerBound) * row
        return StoredTensor(
            name: name, storedName: "\(storedName)[\(matrix), \(rows.lowerBound):\(rows.upperBound)]", type: type,
            shape: [rows.count, shape[2]], file: file, range: start..<start + rows.count * row)
    }

    /// Requires that the tensor has the shape that config.json asks for.
    package func require(shape wanted: [Int]) throws(CheckpointError) {
        if shape != wanted {
            throw refusal(
                "has shape \(shape), but config.json asks for \(wanted)",
                advice: "config.json and the weights belong to different models, or one of them is damaged")
        }
    }
}
