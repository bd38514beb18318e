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

/// Random weights of the right shapes, drawn from a seed: equal seeds and equal shapes in equal order give equal
/// models.
package final class DummyWeights {
    private let dtype: DType
    private var state: UInt64
    private var memory: [DummyMatrix] = []
    private let distinctExperts: Int?
    /// The matrices of routed experts by name, if experts share them.
    private var experts: [String: Weight] = [:]

    /// Creates a generator of weights.
    ///
    /// - Parameters:
    ///   - dtype: F32 or BF16.
    ///   - distinctExperts: the number of routed experts of a layer that have weights of their own, at least 1; the
    ///     others share theirs, so that a model of hundreds of experts fits into a few gigabytes. All of them when
    ///     `nil`.
    package init(dtype: DType, seed: UInt64 = 0, distinctExperts: Int? = nil) {
        precondition(dtype == .f32 || dtype == .bf16, "dummy weights are F32 or BF16")
        precondition(distinctExperts ?? 1 > 0, "experts without weights")
        self.dtype = dtype
        self.distinctExperts = distinctExperts
        // SplitMix64, so that no seed is a fixed point of the generator below.
        var mixed = seed &+ 0x9E37_79B9_7F4A_7C15
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        state = max(mixed ^ (mixed >> 31), 1)
    }

    /// The memory of the matrices made so far, which must outlive the model.
    package var owners: [DummyMatrix] { memory }

    func matrix(_ name: String, _ rows: Int, _ columns: Int) -> Weight {
        guard let owner = distinctOwner(of: name) else { return matrix(rows, columns) }
        if let known = experts[owner], known.rows == rows, known.columns == columns { return known }
        let made = matrix(rows, columns)
        experts[owner] = made
        return made
    }

    /// Returns the name of the matrix whose memory a routed expert's matrix shares; `nil` if matrices are not shared.
    private func distinctOwner(of name: String) -> String? {
        var parts = name.split(separator: ".").map(String.init)
        guard let distinctExperts, let place = parts.firstIndex(of: "experts"), place + 1 < parts.count,
            let expert = Int(parts[place + 1])
        else { return nil }
        parts[place + 1] = "\(expert % distinctExperts)"
        return parts.joined(separator: ".")
    }

    private func matrix(_ rows: Int, _ columns: Int) -> Weight {
        let matrix = DummyMatrix(bytes: dtype.bytes(of: rows * columns))
        memory.append(matrix)
        // Uniform with variance 1 / columns, as trained projections roughly have.
        let range = (3 / Float(columns)).squareRoot()
        let target = unsafe matrix.buffer.pointer
        for element in 0..<rows * columns {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            let value = (Float(state >> 40) / Float(1 << 23) - 1) * range
            if dtype == .f32 {
                unsafe target.storeBytes(of: value, toByteOffset: element * 4, as: Float.self)
            } else {
                unsafe target.storeBytes(of: UInt16(value.bitPattern >> 16), toByteOffset: element * 2, as: UInt16.self)
            }
        }
        return unsafe Weight(target, dtype: dtype, rows: rows, columns: columns)
    }
}

/// The memory of one dummy matrix.
package final class DummyMatrix: Sendable {
    let buffer: Buffer
    init(bytes: Int) { buffer = Buffer(bytes: bytes) }
}
