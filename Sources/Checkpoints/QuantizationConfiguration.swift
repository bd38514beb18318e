import Tensors

/// Checks the `quantization_config` of config.json, which says how a checkpoint's weights are quantized.
///
/// Weights are read by the types and shapes of their tensors (`WeightIndex.matrix`); this refuses another quantization
/// before any weight is opened, by the key that announces it.
package enum QuantizationConfiguration {
    /// Requires that a quantization has an element format and a scaling that kernels read.
    ///
    /// - Throws: naming the key, what was found and what is legal.
    package static func validate(_ quantization: ConfigurationValue) throws(CheckpointError) {
        let method = try quantization.string("quant_method", oneOf: methods.map(\.name))
        let (_, dtype, hasBlocks) = methods.first { $0.name == method }!
        if dtype == .fp8 { _ = try quantization.string("fmt", oneOf: ["e4m3"], default: "e4m3") }
        guard hasBlocks else { return }
        let block = try quantization.intArray("weight_block_size", in: 1...Int(Int32.max), count: 2...2)
        guard dtype.scalings.contains(.blocks(rows: block[0], columns: block[1])) else {
            throw quantization.refusal(
                "weight_block_size", "is \(block), which no kernel reads", advice: WeightIndex.legalWeights)
        }
    }

    /// The quantizations by the names that SGLang and the released checkpoints give them. Those without blocks have one
    /// scale per row.
    private static let methods: [(name: String, dtype: DType, hasBlocks: Bool)] = [
        ("fp8", .fp8, true), ("w8a8_fp8", .fp8, false), ("int8", .int8, false), ("w8a8_int8", .int8, false),
        ("blockwise_int8", .int8, true),
    ]
}
