import JSON
import Synchronization
import Tensors

/// These functions read INT8 matrices whose activations have one scale and offset for all tokens, as ModelSlim stores
/// them (`W8A8`): for a matrix `X.weight`
///
/// | tensor | shape | |
/// |---|---|---|
/// | `X.input_scale`, `X.input_offset` | `[1]` | an activation x becomes the integer `x / scale + offset`, rounded |
/// | `X.quant_bias` | `[rows]` | integers that are added to the sums of products, to take off the offset's part |
/// | `X.deq_scale` | `[rows]` | by which sums are multiplied: the activations' scale times the weights' |
extension WeightIndex {
    /// The endings of the tensors without which no rounding is static.
    private static let ownEndings = [".deq_scale", ".quant_bias"]
    private static let endings = ownEndings + [".input_scale", ".input_offset"]

    /// Returns the name of the matrix whose products a tensor of static rounding belongs to; `nil` for other tensors.
    static func weight(ofStaticRounding name: String) -> String? {
        ownEndings.first(where: name.hasSuffix).map { name.dropLast($0.count) + ".weight" }
    }

    /// Returns the name of a tensor that says that the activations of a matrix have static scales; `nil` if there is none.
    func signOfStaticRounding(of matrix: String) -> String? {
        guard matrix.hasSuffix(".weight") else { return nil }
        return Self.ownEndings.map { matrix.dropLast(".weight".count) + $0 }.first(where: contains)
    }

    /// The tensors that say how the activations of a matrix are rounded.
    fileprivate struct Companions {
        let input: StoredTensor, offset: StoredTensor, bias: StoredTensor, output: StoredTensor
    }

    /// Returns the tensors that say how the activations of a matrix are rounded, of which only headers are read; `nil` if
    /// its scales are not static.
    ///
    /// - Throws: naming the tensor, if one is missing or has another shape, or if they belong to a matrix that is not INT8.
    private func companions(of matrix: StoredTensor) throws(CheckpointError) -> Companions? {
        guard let sign = signOfStaticRounding(of: matrix.name) else { return nil }
        let base = String(matrix.name.dropLast(".weight".count))
        guard matrix.type == .i8, matrix.shape.count == 2 else {
            throw try refusal(ofRoundingBy: sign, matrix)
        }
        for name in Self.endings.map({ base + $0 }) where !contains(name) {
            throw matrix.refusal(
                "has static activation scales, but \(name.quotedForMessage) is missing",
                advice: "the download is not complete, or the model was quantized in another way")
        }
        guard matrix.shape[1] <= StaticRounding.maximumColumns else {
            throw matrix.refusal(
                "has the shape \(matrix.shape), but at most \(StaticRounding.maximumColumns) columns are read with "
                    + "static activation scales",
                advice: "quantize the model with dynamic activations")
        }
        func tensor(_ ending: String, count: Int) throws(CheckpointError) -> StoredTensor {
            let tensor = try self.tensor(named: base + ending)
            if tensor.elementCount == count, tensor.shape.count < 3 { return tensor }
            throw tensor.refusal(
                "has the shape \(tensor.shape), but [\(count)] is needed",
                advice: "the tensors are of different models: download the model again")
        }
        let rows = matrix.shape[0]
        return Companions(
            input: try tensor(".input_scale", count: 1), offset: try tensor(".input_offset", count: 1),
            bias: try tensor(".quant_bias", count: rows), output: try tensor(".deq_scale", count: rows))
    }

    private func refusal(ofRoundingBy sign: String, _ tensor: StoredTensor) throws(CheckpointError) -> CheckpointError {
        try self.tensor(named: sign).refusal(
            "belongs to products of INT8 weights, but \(tensor.name.quotedForMessage) is \(tensor.type.rawValue) "
                + "of shape \(tensor.shape)",
            advice: "the tensors are of different models: download the model again")
    }

    /// Requires that no tensor says how the activations are rounded that multiply this one, which is no INT8 matrix.
    func requireNoRounding(of tensor: StoredTensor) throws(CheckpointError) {
        if let sign = signOfStaticRounding(of: tensor.name) { throw try refusal(ofRoundingBy: sign, tensor) }
    }

    /// Returns true if the activations of a matrix have static scales, after checking the shapes of their tensors.
    func hasStaticRounding(_ matrix: StoredTensor) throws(CheckpointError) -> Bool {
        try companions(of: matrix) != nil
    }

    /// Returns the scales of the rows of a matrix and the rounding of its activations; `nil` if that is not static.
    ///
    /// - Throws: naming the tensor, if one of those above is missing, has another shape or type or impossible numbers, or
    ///   belongs to a matrix that is not INT8.
    func staticRounding(of matrix: StoredTensor) throws(CheckpointError) -> FixedRounding? {
        guard let companions = try companions(of: matrix) else { return nil }
        return try rounded.withLock { known throws(CheckpointError) -> FixedRounding in
            if let made = known[matrix.name] { return made }
            let made = try FixedRounding(matrix, companions)
            for name in scaleNames(of: matrix.name) { try requireAlike(made, matrix, name) }
            known[matrix.name] = made
            return made
        }
    }

    /// Requires that the weights' own scales, which checkpoints may store as well, are those that follow from the others.
    private func requireAlike(
        _ made: FixedRounding, _ matrix: StoredTensor, _ name: String
    ) throws(CheckpointError) {
        let stored = try tensor(named: name)
        guard [[matrix.shape[0]], [matrix.shape[0], 1]].contains(stored.shape), stored.type.isWidened else {
            throw stored.refusal(
                "has shape \(stored.shape) and type \(stored.type.rawValue), but \(matrix.shape[0]) floating-point numbers "
                    + "are needed",
                advice: "remove it: the scales follow from deq_scale and input_scale")
        }
        for (row, found) in stored.widened().enumerated() {
            let own = unsafe made.scales[row]
            if abs(own - found) <= own / 64 { continue }
            throw stored.refusal(
                "scale \(row) is \(found), but deq_scale / input_scale is \(own)",
                advice: "the tensors are of different models: download the model again")
        }
    }
}

/// Holds how the activations of a matrix are rounded, and owns the scales of its rows. It is immutable.
@safe final class FixedRounding: @unchecked Sendable {
    let rounding: StaticRounding
    /// The weights' scales: `deq_scale / input_scale`.
    let scales: UnsafeMutableBufferPointer<Float>

    fileprivate init(_ matrix: StoredTensor, _ companions: WeightIndex.Companions) throws(CheckpointError) {
        let (rows, columns) = (matrix.shape[0], matrix.shape[1])
        let step = try Self.scales(companions.input)[0]
        guard (1 / step).isFinite else {
            throw companions.input.refusal("is \(step), whose inverse is no number", advice: Self.advice)
        }
        let zero = try Self.integers(companions.offset, in: -128...127)[0]
        let limit = StaticRounding.biasLimit - 1
        let biases = try Self.integers(companions.bias, in: -limit...limit)
        let scales = try Self.scales(companions.output).map { $0 / step }
        if let row = scales.firstIndex(where: { !($0.isFinite && $0 > 0) }) {
            throw companions.output.refusal(
                "scale \(row) divided by input_scale \(step) is \(scales[row])", advice: Self.advice)
        }
        unsafe self.scales = .allocate(capacity: rows)
        _ = unsafe self.scales.initialize(from: scales)
        defer { withExtendedLifetime(matrix.file) {} }
        rounding = unsafe StaticRounding(
            scale: step, offset: zero,
            weights: UnsafeRawPointer(matrix.bytes.baseAddress!).assumingMemoryBound(to: Int8.self), rows: rows,
            columns: columns, biases: biases)
        if let row = rounding.biasedRow {
            throw companions.bias.refusal(
                "adds more to row \(row) than the offset's part, but the projections of these models have no bias",
                advice: "use a checkpoint whose outliers were not moved into biases")
        }
    }

    deinit { unsafe scales.deallocate() }

    private static let advice = "the file is damaged or the quantization went wrong: download or convert it again"

    /// Returns positive numbers. Those that are made for F16 models are the bits of F32 in an integer of 64 bits.
    private static func scales(_ tensor: StoredTensor) throws(CheckpointError) -> [Float] {
        var numbers: [Float]
        switch tensor.type {
        case .i64:
            numbers = tensor.wholeNumbers(Int64.self).map { UInt32(exactly: $0).map(Float.init(bitPattern:)) ?? .nan }
        case .f32, .bf16, .f16: numbers = tensor.widened()
        default: throw tensor.refusal("is \(tensor.type.rawValue)", advice: "use F32, BF16, F16 or I64 here")
        }
        if let index = numbers.firstIndex(where: { !($0.isFinite && $0 > 0) }) {
            throw tensor.refusal(
                "scale \(index) is \(numbers[index]), but every scale must be finite and greater than 0",
                advice: advice)
        }
        return numbers
    }

    private static func integers(
        _ tensor: StoredTensor, in range: ClosedRange<Int>
    ) throws(CheckpointError) -> [Int] {
        let numbers: [Int?]
        switch tensor.type {
        case .i8: numbers = tensor.wholeNumbers(Int8.self).map(Int.init)
        case .i32: numbers = tensor.wholeNumbers(Int32.self).map(Int.init)
        case .i64: numbers = tensor.wholeNumbers(Int64.self).map { Int(exactly: $0) }
        case .f32, .bf16, .f16: numbers = tensor.widened().map { Int(exactly: $0) }
        default: throw tensor.refusal("is \(tensor.type.rawValue)", advice: "use I8, I32, I64, F32, BF16 or F16 here")
        }
        return try numbers.enumerated().map { (index, number) throws(CheckpointError) in
            guard let number, range.contains(number) else {
                throw tensor.refusal(
                    "number \(index) is no integer of \(range.lowerBound) to \(range.upperBound)", advice: advice)
            }
            return number
        }
    }
}

extension StoredTensor {
    /// Returns the numbers, widened exactly to F32.
    fileprivate func widened() -> [Float] {
        unsafe [Float](unsafeUninitializedCapacity: elementCount) { target, count in
            if let start = target.baseAddress { unsafe widen(into: start) }
            count = elementCount
        }
    }
}
