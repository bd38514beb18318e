package import Checkpoints
package import Tensors

/// The source of a model's weights: a checkpoint, or random numbers for benchmarks.
package enum WeightSource {
    case checkpoint(WeightIndex)
    case dummy(DummyWeights)

    /// Returns a matrix `[rows, columns]` with its scales if it has any.
    ///
    /// - Throws: `CheckpointError` naming the tensor if it is missing, has another shape, or is stored in a combination
    ///   of element format and scaling that no kernel reads.
    package func matrix(_ name: String, _ rows: Int, _ columns: Int) throws(CheckpointError) -> Weight {
        switch self {
        case .dummy(let dummy): dummy.matrix(name, rows, columns)
        case .checkpoint(let index): try index.matrix(name, rows: rows, columns: columns)
        }
    }

    /// Returns a vector of `count` elements, widened to F32.
    ///
    /// - Parameter value: the elements of dummy weights: 0 for a bias, 1 for a norm.
    /// - Throws: `CheckpointError` naming the tensor if it is missing, has another shape or is not F32, BF16 or F16.
    package func vector(_ name: String, _ count: Int, dummy value: Float) throws(CheckpointError) -> Vector {
        switch self {
        case .dummy: Vector(Array(repeating: value, count: count))
        case .checkpoint(let index): try index.vector(name, count)
        }
    }

    /// Returns a table of `rows * columns` elements, widened to F32, row by row.
    ///
    /// - Parameter value: the elements of dummy weights.
    /// - Throws: `CheckpointError` naming the tensor if it is missing, has another shape or is not F32, BF16 or F16.
    package func vector(
        _ name: String, rows: Int, _ columns: Int, dummy value: Float
    ) throws(CheckpointError) -> Vector {
        switch self {
        case .dummy: Vector(Array(repeating: value, count: rows * columns))
        case .checkpoint(let index): try index.vector(name, shape: [rows, columns])
        }
    }

    /// Returns the experts of each token of the vocabulary, stored as `[vocabulary, expertsPerToken]`.
    ///
    /// - Throws: `CheckpointError` naming the tensor if it is missing, has another shape, is not I64 or I32, or does not
    ///   list different experts for every token.
    package func tokenExperts(
        _ name: String, vocabulary: Int, _ rule: GateRule
    ) throws(CheckpointError) -> TokenExperts {
        switch self {
        case .dummy: return TokenExperts.dummy(vocabulary: vocabulary, rule)
        case .checkpoint(let index):
            let tensor = try index.tensor(named: name)
            let numbers = try index.integers(name, shape: [vocabulary, rule.expertsPerToken])
            return try TokenExperts(numbers, rule) { (token) throws(CheckpointError) in
                throw tensor.refusal(
                    "does not list \(rule.expertsPerToken) different experts of 0..<\(rule.experts) for token \(token)",
                    advice: "the file is damaged, or config.json is of another model")
            }
        }
    }

    /// Returns a matrix that the model uses under two names, which must not have two values.
    ///
    /// - Throws: `CheckpointError` naming the tensor `name` if there is one and it is no copy of `other`.
    package func matrix(_ name: String, tiedTo matrix: Weight, _ other: String) throws(CheckpointError) -> Weight {
        if case .checkpoint(let index) = self { try index.requireTied(name, to: other) }
        return matrix
    }

    /// The owners of the weights' memory, which a model keeps as long as it reads them: the mapped files, or the dummy
    /// matrices.
    package var owners: [any Sendable] {
        switch self {
        case .checkpoint(let index): [index]
        case .dummy(let dummy): dummy.owners
        }
    }
}
