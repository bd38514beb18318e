/// Describes DeepSeek's FP8 weights: F8_E4M3 values with one F32 scale per block of 128 × 128.
///
/// The scales of `X.weight` are called `X.weight_scale_inv`; despite the name, values are multiplied by them.
package enum FP8Blocks {
    /// A block has this many rows and as many columns.
    package static let size = 128

    /// Requires that a `quantization_config` of config.json describes this format.
    package static func validate(_ quantization: ConfigurationValue) throws(CheckpointError) {
        _ = try quantization.string("quant_method", oneOf: ["fp8"])
        _ = try quantization.string("fmt", oneOf: ["e4m3"], default: "e4m3")
        let block = try quantization.intArray("weight_block_size", in: 1...Int(Int32.max), count: 2...2)
        guard block == [size, size] else {
            throw quantization.refusal(
                "weight_block_size", "is \(block), but only [\(size), \(size)] is supported",
                advice: "convert the model to blocks of \(size) × \(size)")
        }
    }

    /// Pairs a weight with its scales.
    static func pair(_ values: StoredTensor, in index: WeightIndex) throws(CheckpointError) -> QuantizedTensor {
        let scales = try index.scales(of: values, suffix: "_scale_inv") { rows, columns in
            [[blocks(rows), blocks(columns)]]
        }
        return QuantizedTensor(scheme: .fp8Blocks, values: values, scales: scales)
    }

    /// Returns the number of blocks that cover an extent; the last may be partial.
    package static func blocks(_ extent: Int) -> Int { extent / size + (extent % size == 0 ? 0 : 1) }
}
