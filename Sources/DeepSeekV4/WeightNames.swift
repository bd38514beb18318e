import Modeling

/// The names of tensors in the released checkpoints, which have no prefix.
enum WeightNames {
    static let embedding = "embed.weight"
    static let finalNorm = "norm.weight"
    static let head = "head.weight"
    /// The prefix of the tensors that mix the streams for the output head.
    static let headStreams = "hc_head_"

    /// Returns the prefix of a layer. The next-token block is stored apart, but counted as the layer after the last.
    static func layer(_ layer: Int, of layers: Int) -> String {
        layer < layers ? "layers.\(layer)." : "mtp.\(layer - layers)."
    }

    /// The matrices of a feed-forward: gate, up and down.
    static let feedForward = FeedForwardNames(gate: "w1", up: "w3", down: "w2")
}
