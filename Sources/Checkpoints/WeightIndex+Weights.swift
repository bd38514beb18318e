import JSON
import Synchronization
package import Tensors

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// These functions read weights in any legal combination of element format and scaling.
///
/// The scales of `X.weight` are called `X.weight_scale_inv`, `X.weight_scale` or `X.scale`; despite the first name,
/// values are multiplied by them. Their shape says what a scale belongs to: `[rows]` or `[rows, 1]` to a row, else to a
/// block. I8 or U8 numbers of half as many columns as the matrix has are pairs of FP4 elements.
extension WeightIndex {
    /// Returns a matrix `[rows, columns]` with its scales if it has any.
    ///
    /// Elements in F32, BF16, F8_E4M3, I8 and FP4 are used as stored, and so are F32 scales and those of FP4, which are
    /// F8_E8M0. F16 elements and other scales in BF16 or F8_E8M0 are widened exactly to F32. All memory is valid as long
    /// as this index lives.
    ///
    /// - Throws: naming the tensor, if it is missing, has another shape, is stored in a type or with scales that no
    ///   kernel reads, or a scale is not finite and greater than 0.
    package func matrix(_ name: String, rows: Int, columns: Int) throws(CheckpointError) -> Weight {
        let tensor = try tensor(named: name)
        try requireSymmetric(tensor)
        if tensor.isPairs(of: [rows, columns]) {
            try requireNoRounding(of: tensor)
            return try pairs(tensor, rows: rows, columns: columns)
        }
        try tensor.require(shape: [rows, columns])
        if let fixed = try staticRounding(of: tensor) {
            return unsafe Weight(
                tensor.start, dtype: .int8, rows: rows, columns: columns, scaling: .perRow,
                scale: UnsafeRawPointer(fixed.scales.baseAddress!), rounding: fixed.rounding)
        }
        guard let dtype = tensor.type.weightFormat else {
            throw tensor.refusal("is stored as \(tensor.type.rawValue)", advice: "convert it: \(Self.legalWeights)")
        }
        guard let (scaling, scales) = try scales(of: tensor, shape: tensor.shape, dtype) else {
            let elements = unsafe dtype == .f32 ? UnsafeRawPointer(try numbers(of: tensor)) : tensor.start
            return unsafe Weight(elements, dtype: dtype, rows: rows, columns: columns)
        }
        return try unsafe Weight(
            tensor.start, dtype: dtype, rows: rows, columns: columns, scaling: scaling, scale: numbers(of: scales))
    }

    /// Returns a matrix of FP4 elements, two in each number of the tensor.
    private func pairs(_ tensor: StoredTensor, rows: Int, columns: Int) throws(CheckpointError) -> Weight {
        let (scaling, scales) = try scales(of: tensor, shape: [rows, columns], .fp4)!
        return unsafe Weight(
            tensor.start, dtype: .fp4, rows: rows, columns: columns, scaling: scaling, scale: scales.start)
    }

    /// Requires that a matrix is stored once where the model uses it under two names (`tie_word_embeddings`): a tensor
    /// of the second name may be missing, or a copy of the first.
    ///
    /// - Throws: naming the second tensor if its bytes differ from those of the first.
    package func requireTied(_ name: String, to other: String) throws(CheckpointError) {
        guard contains(name) else { return }
        let (copy, original) = (try tensor(named: name), try tensor(named: other))
        try requireNoRounding(of: copy)
        defer { withExtendedLifetime(self) {} }
        let isAlike = copy.type == original.type && copy.shape == original.shape
        let isCopy = unsafe isAlike && copy.bytes.elementsEqual(original.bytes)
        if !isCopy {
            throw copy.refusal(
                "differs from \(other), but tie_word_embeddings of config.json says that they are one",
                advice: "set tie_word_embeddings to false to use both, or remove the tensor that is not meant")
        }
    }

    /// Is the size of the memory that this index owns, for the tensors that were widened so far.
    package var widenedBytes: Int {
        DType.f32.bytes(of: widened.withLock { $0.values.reduce(0) { $0 + $1.count } })
    }

    /// Requires that a weight and its scales have the shapes with which it can be read. Only headers are read.
    ///
    /// - Parameter shape: that of the weight, in which a pair of FP4 elements counts as two.
    /// - Throws: naming the tensor that is missing or has another shape.
    package func require(_ name: String, shape: [Int]) throws(CheckpointError) {
        let tensor = try tensor(named: name)
        if tensor.isPairs(of: shape) {
            _ = try scaling(of: tensor, shape: shape, .fp4)
            return
        }
        try tensor.require(shape: shape)
        if try hasStaticRounding(tensor) { return }
        guard shape.count == 2, let dtype = tensor.type.weightFormat else { return }
        _ = try scaling(of: tensor, shape: shape, dtype)
    }

    /// Returns the bytes that a tensor and its scales take in memory: those of the file, or of F32 where they are
    /// widened.
    package func memoryBytes(ofWeight name: String) throws(CheckpointError) -> Int {
        func bytes(_ tensor: StoredTensor, isWidened: Bool) -> Int {
            isWidened ? DType.f32.bytes(of: tensor.elementCount) : tensor.byteCount
        }
        let tensor = try tensor(named: name)
        var total = bytes(tensor, isWidened: tensor.type == .f16)
        for name in scaleNames(of: name) {
            let scales = try self.tensor(named: name)
            total += bytes(scales, isWidened: !tensor.isPairs(with: scales))
        }
        return total
    }
}

extension WeightIndex {
    /// The numerics profile that suits the weights: `f32` if most bytes of the matrices are F32 or F16, which BF16 would
    /// round, and `bf16` otherwise. With matrices in INT8 the others decide between `int8F32` and `int8`.
    package var profile: NumericsProfile {
        let hasIntegers = hasIntegers
        let scales = Set(names.flatMap(scaleNames))
        var (wide, narrow) = (0, 0)
        for tensor in tensors.values where tensor.shape.count == 2 && !scales.contains(tensor.name) {
            switch tensor.type {
            case .f32, .f16: wide += tensor.byteCount
            case .i8 where hasIntegers: continue
            case .bf16, .f8e4m3, .i8, .u8: narrow += tensor.byteCount
            default: continue
            }
        }
        if hasIntegers { return wide > narrow ? .int8F32 : .int8 }
        return wide > narrow ? .f32 : .bf16
    }

    /// True if some matrices are INT8, rather than pairs of FP4 elements.
    package var hasIntegers: Bool {
        tensors.values.contains { tensor in
            guard tensor.type == .i8, tensor.shape.count == 2 else { return false }
            return !scaleNames(of: tensor.name).contains { tensors[$0]?.type == .f8e8m0 }
        }
    }
}

// MARK: - Formats

extension StoredType {
    /// Is the element format that kernels read; F16 is widened to F32. It is `nil` for types of no weights.
    fileprivate var weightFormat: DType? {
        switch self {
        case .f32, .f16: .f32
        case .bf16: .bf16
        case .f8e4m3: .fp8
        case .i8: .int8
        default: nil
        }
    }
}

extension StoredType {
    /// True for bytes that may be two FP4 elements each.
    fileprivate var holdsPairs: Bool { self == .i8 || self == .u8 }
}

extension StoredTensor {
    /// Returns the numbers of a tensor of integers of this type.
    func wholeNumbers<Integer: FixedWidthInteger>(_: Integer.Type) -> [Integer] {
        defer { withExtendedLifetime(file) {} }
        return (0..<elementCount).map {
            unsafe Integer(littleEndian: bytes.load(fromByteOffset: $0 * type.bytes, as: Integer.self))
        }
    }

    /// Returns true if this holds a matrix of this shape as pairs of FP4 elements.
    fileprivate func isPairs(of matrix: [Int]) -> Bool {
        type.holdsPairs && matrix.count == 2 && matrix[1] % 2 == 0 && shape == [matrix[0], matrix[1] / 2]
    }

    /// Returns true if this is a matrix of pairs of FP4 elements with these scales.
    fileprivate func isPairs(with scales: StoredTensor) -> Bool {
        guard type.holdsPairs, scales.type == .f8e8m0, shape.count == 2 else { return false }
        let (columns, isDoubled) = shape[1].multipliedReportingOverflow(by: 2)
        return !isDoubled && DType.fp4.scalings.contains { $0.shapes(of: [shape[0], columns]).contains(scales.shape) }
    }

    /// Points to the first number.
    @unsafe fileprivate var start: UnsafeRawPointer { unsafe bytes.baseAddress! }
}

extension WeightIndex {
    /// Lists the legal combinations of element format and scaling, for messages.
    package static var legalWeights: String {
        let formats = StoredType.allCases.compactMap { type in
            type.weightFormat.map {
                "\(type.rawValue) with " + $0.scalings.map(\.description).joined(separator: " or ")
            }
        }
        let pairs = DType.fp4.scalings.map(\.description).joined(separator: " or ")
        return "legal are " + formats.joined(separator: ", ") + ", I8 or U8 of pairs of FP4 with \(pairs) in F8_E8M0"
    }

    /// Returns the tensor's numbers in F32: as stored, or widened into memory that the index owns.
    @unsafe private func numbers(of tensor: StoredTensor) throws(CheckpointError) -> UnsafePointer<Float> {
        if tensor.type == .f32 { return unsafe tensor.start.assumingMemoryBound(to: Float.self) }
        let owner = try widened.withLock { known throws(CheckpointError) -> WidenedTensor in
            if let owner = known[tensor.name] { return owner }
            let made = try WidenedTensor(tensor)
            known[tensor.name] = made
            return made
        }
        return unsafe owner.numbers.baseAddress!
    }
}

// MARK: - Scales

extension WeightIndex {
    /// Returns the names of the tensors that hold a weight's scales: none, or one in valid checkpoints.
    func scaleNames(of name: String) -> [String] { Self.possibleScaleNames(of: name).filter(contains) }

    /// Returns the name of the weight that a tensor of scales or offsets belongs to, by its own name; `nil` for others.
    package static func weight(ofScales name: String) -> String? {
        if let weight = weight(ofStaticRounding: name) { return weight }
        for ending in scaleEndings + offsetEndings where name.hasSuffix(ending) {
            return String(name.dropLast(ending.count))
        }
        return name.hasSuffix(".scale") ? String(name.dropLast(".scale".count)) + ".weight" : nil
    }

    private static let scaleEndings = ["_scale_inv", "_scale"]
    private static let offsetEndings = ["_offset", "_zero_point"]

    private static func possibleScaleNames(of name: String) -> [String] {
        let ending = ".weight"
        let released: [String] = name.hasSuffix(ending) ? [String(name.dropLast(ending.count)) + ".scale"] : []
        return scaleEndings.map { name + $0 } + released
    }

    /// Returns what a matrix's scales belong to and the tensor that holds them, checked; `nil` if it has none and needs
    /// none.
    ///
    /// - Parameter shape: that of the matrix, which has more columns than `values` if those are pairs.
    private func scales(
        of values: StoredTensor, shape: [Int], _ dtype: DType
    ) throws(CheckpointError) -> (Scaling, StoredTensor)? {
        guard let (scaling, scales) = try scaling(of: values, shape: shape, dtype) else { return nil }
        if dtype == .fp4 { try requireBytes(scales) } else { try requirePositive(scales) }
        return (scaling, scales)
    }

    /// Returns the same as `scales`, of which only the shape is checked.
    private func scaling(
        of values: StoredTensor, shape: [Int], _ dtype: DType
    ) throws(CheckpointError) -> (Scaling, StoredTensor)? {
        let names = scaleNames(of: values.name)
        guard names.count < 2 else {
            throw values.refusal("has scales of two names, \(names[0]) and \(names[1])", advice: "remove the wrong one")
        }
        guard let name = names.first else {
            if dtype.scalings.contains(.none) { return nil }
            let expected = Self.possibleScaleNames(of: values.name).map(\.quotedForMessage).joined(separator: " or ")
            throw values.refusal(
                "is \(values.type.rawValue) but its scales \(expected) are missing",
                advice: "the download is not complete, or the model was quantized in another way")
        }
        let scales = try tensor(named: name)
        return (try scaling(of: values, shape: shape, dtype, by: scales), scales)
    }

    /// Returns the scaling of the element format that fits the scales' shape.
    private func scaling(
        of values: StoredTensor, shape: [Int], _ dtype: DType, by scales: StoredTensor
    ) throws(CheckpointError) -> Scaling {
        guard dtype.scalings != [.none] else {
            throw values.refusal(
                "is \(values.type.rawValue) with the scales \(scales.name.quotedForMessage), which no kernel reads",
                advice: Self.legalWeights)
        }
        let shapes = dtype.scalings.map { ($0, $0.shapes(of: shape)) }
        if let (scaling, _) = shapes.first(where: { $0.1.contains(scales.shape) }) { return scaling }
        let expected = shapes.flatMap { scaling, shapes in shapes.map { "\($0) (\(scaling))" } }
        throw scales.refusal(
            "has the shape \(scales.shape), but a weight of \(shape) in "
                + "\(dtype == .fp4 ? "FP4" : values.type.rawValue) needs "
                + expected.joined(separator: " or "),
            advice: "weights and scales are of different models, or the model was quantized in another way")
    }

    /// Requires that a tensor is used as it is stored, which is so for vectors: no kernel scales them.
    func requireUnscaled(_ tensor: StoredTensor) throws(CheckpointError) {
        try requireSymmetric(tensor)
        try requireNoRounding(of: tensor)
        guard let name = scaleNames(of: tensor.name).first else { return }
        throw try self.tensor(named: name).refusal(
            "would be ignored: it scales \(tensor.name.quotedForMessage), which is no matrix",
            advice: "remove it if its scales are all 1, or multiply by them when the model is converted")
    }

    /// Requires that numbers of 0 stand for 0: checkpoints that store offsets beside scales store zeros.
    private func requireSymmetric(_ values: StoredTensor) throws(CheckpointError) {
        for name in Self.offsetEndings.map({ values.name + $0 }) where contains(name) {
            let offsets = try tensor(named: name)
            guard unsafe offsets.bytes.contains(where: { $0 != 0 }) else { continue }
            throw offsets.refusal(
                "is not zero everywhere, but only symmetric quantization is read",
                advice: "quantize the model symmetrically")
        }
    }

    /// Requires that the scales of FP4 elements are F8_E8M0 and none is NaN: any other byte is finite and greater than 0.
    private func requireBytes(_ scales: StoredTensor) throws(CheckpointError) {
        guard scales.type == .f8e8m0 else {
            throw scales.refusal(
                "is \(scales.type.rawValue), but the scales of FP4 weights must be F8_E8M0",
                advice: "convert the scales to F8_E8M0")
        }
        defer { withExtendedLifetime(scales) {} }
        // They are a sixteenth of the weights, so they are searched at the speed of the memory.
        guard scales.byteCount > 0, let found = unsafe memchr(scales.start, 0xFF, scales.byteCount) else { return }
        throw scales.refusal(
            "scale \(unsafe UnsafeRawPointer(found) - scales.start) is NaN, but every scale must be finite",
            advice: "the file is damaged or the quantization went wrong: download or convert it again")
    }

    /// Requires that scales are stored in a type that is widened exactly, and all finite and greater than 0.
    private func requirePositive(_ scales: StoredTensor) throws(CheckpointError) {
        guard [.f32, .bf16, .f8e8m0].contains(scales.type) else {
            throw scales.refusal(
                "is \(scales.type.rawValue), but scales must be F32, BF16 or F8_E8M0",
                advice: "convert the scales to F32")
        }
        let numbers = try unsafe UnsafeBufferPointer(start: numbers(of: scales), count: scales.elementCount)
        defer { withExtendedLifetime(self) {} }
        if let index = unsafe numbers.firstIndex(where: { !($0.isFinite && $0 > 0) }) {
            throw scales.refusal(
                "scale \(index) is \(unsafe numbers[index]), but every scale must be finite and greater than 0",
                advice: "the file is damaged or the quantization went wrong: download or convert it again")
        }
    }
}

extension Scaling {
    /// Returns the shapes that scales of a matrix of this shape may have in a file.
    fileprivate func shapes(of matrix: [Int]) -> [[Int]] {
        guard let grid = grid(rows: matrix[0], columns: matrix[1]) else { return [] }
        let shape = [grid.rows, grid.columns]
        return self == .perRow ? [[grid.rows], shape] : [shape]
    }
}
