/// Describes eight-bit integer weights with one F32 scale per output channel, that is, per row.
///
/// The scales of `X.weight` are called `X.weight_scale` and have the shape [rows] or [rows, 1].
enum INT8Channels {
    /// Pairs a weight with its scales.
    static func pair(_ values: StoredTensor, in index: WeightIndex) throws(CheckpointError) -> QuantizedTensor {
        let scales = try index.scales(of: values, suffix: "_scale") { rows, _ in [[rows], [rows, 1]] }
        return QuantizedTensor(scheme: .int8Channels, values: values, scales: scales)
    }
}
