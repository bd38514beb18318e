import JSON

/// Pairs a weight matrix stored in eight bits with the scales that restore its values. Both are used as stored.
package struct QuantizedTensor: Sendable {
    /// Says what a scale belongs to.
    package enum Scheme: Sendable, Equatable {
        /// An element is `value[r, c] · scales[r / 128, c / 128]`, with values in F8_E4M3.
        /// The last block of a row or column may be partial.
        case fp8Blocks
        /// An element is `value[r, c] · scales[r]`, with values in I8.
        case int8Channels
    }

    package let scheme: Scheme
    /// Is [rows, columns] in F8_E4M3 or I8.
    package let values: StoredTensor
    /// Is F32, all finite and greater than 0: [⌈rows / 128⌉, ⌈columns / 128⌉], or [rows] or [rows, 1].
    package let scales: StoredTensor

    package var rows: Int { values.shape[0] }
    package var columns: Int { values.shape[1] }
}

extension WeightIndex {
    /// Returns the weight of this name with its scales, in the scheme of its stored type.
    ///
    /// - Throws: also when the weight is stored in a type that needs no scales; check `tensor(named:).type` first.
    package func quantizedTensor(named name: String) throws(CheckpointError) -> QuantizedTensor {
        let values = try tensor(named: name)
        switch values.type {
        case .f8e4m3: return try FP8Blocks.pair(values, in: self)
        case .i8: return try INT8Channels.pair(values, in: self)
        default:
            throw values.refusal(
                "is stored as \(values.type.rawValue), not quantized as F8_E4M3 or I8",
                advice: "check quantization_config of config.json against the weights")
        }
    }

    /// Returns the scales of a quantized matrix after checking name, type, shape, and that all are finite and above 0.
    func scales(
        of values: StoredTensor, suffix: String, shapes: (_ rows: Int, _ columns: Int) -> [[Int]]
    ) throws(CheckpointError) -> StoredTensor {
        guard values.shape.count == 2 else {
            throw values.refusal(
                "has the shape \(values.shape), but only matrices [rows, columns] are quantized",
                advice: "convert the model again")
        }
        let name = values.name + suffix
        guard contains(name) else {
            throw values.refusal(
                "is \(values.type.rawValue) but its scales \(name.quotedForMessage) are missing",
                advice: "the download is not complete, or the model was quantized in another way")
        }
        let scales = try tensor(named: name)
        guard scales.type == .f32 else {
            throw scales.refusal(
                "is \(scales.type.rawValue), but scales must be F32", advice: "convert the scales to F32")
        }
        let expected = shapes(values.shape[0], values.shape[1])
        guard expected.contains(scales.shape) else {
            let choice = expected.map { "\($0)" }.joined(separator: " or ")
            throw scales.refusal(
                "has the shape \(scales.shape), but a weight of \(values.shape) needs \(choice)",
                advice: "weights and scales are of different models, or of another block size than 128")
        }
        if let (index, value) = scales.firstIndex(failing: { $0.isFinite && $0 > 0 }) {
            throw scales.refusal(
                "scale \(index) is \(value), but every scale must be finite and greater than 0",
                advice: "the file is damaged or the quantization went wrong: download or convert it again")
        }
        return scales
    }
}
