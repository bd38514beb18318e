/// The names of tensors in the released checkpoints.
enum WeightNames {
    static let embedding = "model.embed_tokens.weight"
    static let finalNorm = "model.norm.weight"
    static let head = "lm_head.weight"

    static func layer(_ layer: Int) -> String { "model.layers.\(layer)." }
    static func attention(_ layer: Int, _ name: String) -> String { "model.layers.\(layer).self_attn.\(name)" }
    static func feedForward(_ layer: Int, _ name: String) -> String { "model.layers.\(layer).mlp.\(name)" }
    static func expert(_ layer: Int, _ expert: Int) -> String { feedForward(layer, "experts.\(expert).") }
}
