package import Tensors

/// These functions read vectors: norms, biases, sinks, scales of streams, and small tables.
///
/// A number that is not finite would spoil every row, or, in the bias of a router, hide an expert without any error. So
/// each vector is searched when it is loaded. Matrices are not: they are nearly all of a checkpoint, and a row's logits
/// show what they have.
extension WeightIndex {
    /// Returns a vector of `count` numbers, widened exactly to F32.
    ///
    /// - Throws: naming the tensor, if it is missing, has another shape or scales, is not F32, BF16 or F16, or has a number
    ///   that is not finite.
    package func vector(_ name: String, _ count: Int) throws(CheckpointError) -> Vector {
        try vector(name, shape: [count])
    }

    /// Returns the numbers of a tensor, row by row, widened exactly to F32.
    ///
    /// - Throws: as `vector(_:_:)` does.
    package func vector(_ name: String, shape: [Int]) throws(CheckpointError) -> Vector {
        let (tensor, count) = (try tensor(named: name), shape.reduce(1, *))
        try tensor.require(shape: shape)
        try requireUnscaled(tensor)
        guard tensor.type.isWidened, tensor.type != .f8e8m0 else {
            throw tensor.refusal("is stored as \(tensor.type.rawValue)", advice: "use F32, BF16 or F16 here")
        }
        var broken: (index: Int, number: Float)?
        let vector = unsafe Vector(count: count) { target in
            unsafe tensor.widen(into: target)
            let numbers = unsafe UnsafeBufferPointer(start: target, count: count)
            broken = unsafe numbers.firstIndex { !$0.isFinite }.map { unsafe ($0, numbers[$0]) }
        }
        if let (index, number) = broken { throw tensor.refusal(ofNumber: number, at: index) }
        return vector
    }

    /// Returns the integers of a tensor, row by row.
    ///
    /// - Throws: naming the tensor, if it is missing, has another shape or scales, or is not I64 or I32.
    package func integers(_ name: String, shape: [Int]) throws(CheckpointError) -> [Int] {
        let tensor = try tensor(named: name)
        try tensor.require(shape: shape)
        try requireUnscaled(tensor)
        switch tensor.type {
        case .i64: return tensor.wholeNumbers(Int64.self).map(Int.init)
        case .i32: return tensor.wholeNumbers(Int32.self).map(Int.init)
        default: throw tensor.refusal("is stored as \(tensor.type.rawValue)", advice: "use I64 or I32 here")
        }
    }
}

extension StoredTensor {
    /// Returns the error for a number that is not finite.
    ///
    /// - Parameter index: the number's place among all of the tensor, row by row.
    fileprivate func refusal(ofNumber number: Float, at index: Int) -> CheckpointError {
        let place = shape.count == 2 ? "\(index / shape[1]), \(index % shape[1])" : "\(index)"
        return refusal(
            "has \(number) at index [\(place)], but every number of it must be finite",
            advice: "the file is damaged or training went wrong: download the model again, or use an earlier checkpoint"
        )
    }
}
