package import Tensors

/// Random weights of the right shapes, drawn from a seed: equal seeds and equal shapes in equal order give equal
/// models.
///
/// They are stored as a checkpoint stores them, so that a step reads as many bytes: quantized matrices in their format,
/// with scales.
package final class DummyWeights {
    /// The format of matrices that `quantized` does not name.
    private let plain: WeightFormat
    /// The formats of other matrices, by name.
    private let quantized: [String: WeightFormat]
    private var state: UInt64
    private var memory: [DummyMatrix] = []
    private let distinctExperts: Int?
    /// The matrices of routed experts by name, if experts share them.
    private var experts: [String: Weight] = [:]

    /// Creates a generator of weights that are all of one type.
    ///
    /// - Parameters:
    ///   - dtype: F32 or BF16.
    ///   - distinctExperts: the number of routed experts of a layer that have weights of their own, at least 1; the
    ///     others share theirs, so that a model of hundreds of experts fits into a few gigabytes. All of them when
    ///     `nil`.
    package convenience init(dtype: DType, seed: UInt64 = 0, distinctExperts: Int? = nil) {
        self.init(plain: WeightFormat(dtype), [:], seed: seed, distinctExperts: distinctExperts)
    }

    /// Creates a generator of weights in the formats in which a model's checkpoint stores them.
    ///
    /// - Parameter distinctExperts: as above.
    package convenience init(of model: ModelDescription, seed: UInt64 = 0, distinctExperts: Int? = nil) {
        let formats = model.formats
        var quantized: [String: WeightFormat] = [:]
        for weights in (model.layers + model.draftLayers).flatMap(\.weights) {
            for name in weights.names { quantized[name] = formats.format(of: weights) }
        }
        self.init(plain: formats.plain, quantized, seed: seed, distinctExperts: distinctExperts)
    }

    private init(
        plain: WeightFormat, _ quantized: [String: WeightFormat], seed: UInt64, distinctExperts: Int?
    ) {
        precondition(plain.scaling == .none, "vectors and the vocabulary have no scales")
        precondition(distinctExperts ?? 1 > 0, "experts without weights")
        self.plain = plain
        self.quantized = quantized
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
        let format = quantized[name] ?? plain
        guard let owner = distinctOwner(of: name) else { return matrix(rows, columns, format) }
        if let known = experts[owner], known.rows == rows, known.columns == columns { return known }
        let made = matrix(rows, columns, format)
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

    private func matrix(_ rows: Int, _ columns: Int, _ format: WeightFormat) -> Weight {
        let dtype = format.dtype
        let grid = format.scaling.grid(rows: rows, columns: columns) ?? (0, 0)
        let matrix = DummyMatrix(
            dtype, bytes: dtype.bytes(of: rows * columns), scales: grid.rows * grid.columns)
        memory.append(matrix)
        // The variance is 1 / columns, as trained projections roughly have. Numbers by which the deviation is divided
        // are the root mean squares of what is stored.
        let deviation = (1 / Float(columns)).squareRoot()
        switch dtype {
        case .f32, .bf16: fill(matrix, range: deviation * Float(3).squareRoot())
        case .fp8:
            // In E4M3: 0.5 to 1.875, with either sign.
            fillBytes(matrix, keeping: 0x8F8F_8F8F_8F8F_8F8F, setting: 0x3030_3030_3030_3030)
            matrix.setScales(deviation / Float(1.343).squareRoot())
        case .int8:
            fillBytes(matrix, keeping: .max, setting: 0)
            matrix.setScales(deviation / Float(5461.5).squareRoot())
        case .fp4:
            fillBytes(matrix, keeping: .max, setting: 0)
            matrix.setScales(deviation / Float(8.5625).squareRoot())
        }
        return unsafe Weight(
            matrix.buffer.pointer, dtype: dtype, rows: rows, columns: columns, scaling: format.scaling,
            scale: matrix.scales)
    }

    private func next() -> UInt64 {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return state
    }

    /// Writes numbers between `-range` and `range`, in F32 or BF16.
    private func fill(_ matrix: DummyMatrix, range: Float) {
        let target = unsafe matrix.buffer.pointer
        let isF32 = matrix.dtype == .f32
        for element in 0..<matrix.bytes / (isF32 ? 4 : 2) {
            let value = (Float(next() >> 40) / Float(1 << 23) - 1) * range
            if isF32 {
                unsafe target.storeBytes(of: value, toByteOffset: element * 4, as: Float.self)
            } else {
                unsafe target.storeBytes(of: UInt16(value.bitPattern >> 16), toByteOffset: element * 2, as: UInt16.self)
            }
        }
    }

    /// Writes random bits where `mask` has ones, and those of `bits` elsewhere, to each eight bytes. What follows the
    /// matrix' last byte is overwritten as well.
    private func fillBytes(_ matrix: DummyMatrix, keeping mask: UInt64, setting bits: UInt64) {
        let target = unsafe matrix.buffer.pointer
        for start in stride(from: 0, to: matrix.bytes, by: 8) {
            unsafe target.storeBytes(of: next() & mask | bits, toByteOffset: start, as: UInt64.self)
        }
    }
}

/// The memory of one dummy matrix, followed by that of its scales.
package final class DummyMatrix: Sendable {
    let dtype: DType
    /// The number of bytes of the elements.
    let bytes: Int
    let buffer: Buffer
    private let scaleCount: Int

    init(_ dtype: DType, bytes: Int, scales: Int) {
        self.dtype = dtype
        self.bytes = bytes
        scaleCount = scales
        buffer = Buffer(bytes: Self.padded(bytes) + scales * (dtype == .fp4 ? 1 : 4))
    }

    private static func padded(_ bytes: Int) -> Int { (bytes + 63) & ~63 }

    /// The scales, E8M0 bytes for FP4 and otherwise F32; `nil` without scales.
    @unsafe var scales: UnsafeMutableRawPointer? {
        scaleCount == 0 ? nil : unsafe buffer.pointer + Self.padded(bytes)
    }

    /// Sets every scale to one value: those of FP4 and FP8 to the nearest power of two, as in checkpoints since V3.1.
    func setScales(_ value: Float) {
        guard let scales = unsafe scales else { return }
        let exponent = Int(value.exponent) + (value.significand > Float(2).squareRoot() ? 1 : 0)
        if dtype == .fp4 {
            unsafe scales.initializeMemory(as: UInt8.self, repeating: UInt8(exponent + 127), count: scaleCount)
        } else {
            let scale = dtype == .fp8 ? Float(sign: .plus, exponent: exponent, significand: 1) : value
            unsafe scales.initializeMemory(as: Float.self, repeating: scale, count: scaleCount)
        }
    }
}
