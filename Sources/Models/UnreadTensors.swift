import Checkpoints
import Modeling

/// Finds tensors of a checkpoint that its model would not read though they belong to it.
///
/// A `config.json` that does not fit the weights, such as one of too few layers, would otherwise give a model that
/// computes something else without any error. So every tensor must be read, or be one that cannot change an answer.
struct UnreadTensors {
    private let model: ModelDescription
    /// The tensors that the model reads or compares, without those of scales.
    private let read: Set<String>

    init(_ model: ModelDescription) {
        self.model = model
        read = Set(model.readWeights.flatMap(\.names) + (model.tensorNames?.copies ?? []))
    }

    /// Requires that every tensor is read or may be ignored.
    ///
    /// - Throws: `CheckpointError` naming the first tensor for which `config.json` has no place, and the key at fault where
    ///   it is known.
    func requireNone(in weights: WeightIndex) throws(CheckpointError) {
        for name in weights.names {
            if let refusal = try refusal(of: name, in: weights) { throw refusal }
        }
    }

    /// Returns the refusal of a tensor that is neither read nor may be ignored; `nil` for others. Whoever reads a tensor
    /// checks its scales.
    func refusal(of name: String, in weights: WeightIndex) throws(CheckpointError) -> CheckpointError? {
        if read.contains(name) { return nil }
        if let weight = WeightIndex.weight(ofScales: name), read.contains(weight) { return nil }
        let tensor = try weights.tensor(named: name)
        if Self.isIgnorable(tensor) || isOfNextTokenBlock(name, weights) { return nil }
        return tensor.refusal(problem(with: name), advice: Self.advice)
    }

    static let advice =
        "config.json and the weights are not of the same model, or have other names than released: correct it, or download "
        + "both again"

    /// Returns true for tensors of next-token blocks, whether or not `config.json` counts them. What a block drafts is
    /// verified, so no answer depends on its tensors; those that it needs are checked when it is loaded.
    private func isOfNextTokenBlock(_ name: String, _ weights: WeightIndex) -> Bool {
        guard let names = model.tensorNames, let number = Self.number(after: names.blocks, in: name) else {
            return false
        }
        return number >= names.firstBlock && weights.contains("\(names.blocks)\(number).\(names.blockTensor)")
    }

    /// Returns what is wrong with a tensor that the model would ignore.
    private func problem(with name: String) -> String {
        guard let names = model.tensorNames, let layer = Self.number(after: names.layers, in: name) else {
            return "would be ignored: a \(model.modelType) model has no such tensor"
        }
        guard layer < model.layers.count else {
            return "belongs to layer \(layer), counted from 0, but config.json says num_hidden_layers "
                + "\(model.layers.count)"
        }
        let experts = model.routedExperts
        if let expert = Self.number(after: ".experts.", in: name), expert >= experts {
            return "belongs to the routed expert \(expert), counted from 0, but config.json says n_routed_experts "
                + "\(experts)"
        }
        if name.contains(".shared_experts."), !model.hasSharedExperts {
            return "belongs to shared experts, but config.json says n_shared_experts 0"
        }
        return "would be ignored: by config.json, layer \(layer) of this \(model.modelType) model "
            + "(\(model.layers[layer].kind)) has no such tensor"
    }

    /// Returns the number that follows the first occurrence of `prefix`, before a dot.
    private static func number(after prefix: String, in name: String) -> Int? {
        guard let start = name.firstRange(of: prefix)?.upperBound else { return nil }
        let digits = name[start...].prefix { $0.isASCII && $0.isNumber }
        return name[digits.endIndex...].hasPrefix(".") ? Int(digits) : nil
    }

    /// Returns true for tensors without which a model computes the same.
    private static func isIgnorable(_ tensor: StoredTensor) -> Bool {
        if ignorableEndings.contains(where: tensor.name.hasSuffix) || tensor.elementCount == 0 { return true }
        // Tools that move outliers between layers write a bias for each norm, also where it adds nothing.
        guard tensor.name.hasSuffix(".bias") else { return false }
        return unsafe tensor.bytes.allSatisfy { $0 == 0 }
    }

    /// The endings of tensors that other engines write or read: rotary frequencies, which follow from `config.json`; scales
    /// and zero points for a KV cache, for attention or for activations, which have scales of their own here.
    private static let ignorableEndings = [
        ".inv_freq", ".q_scale", ".k_scale", ".v_scale", ".kv_scale", ".kv_cache_scale", ".kv_cache_offset",
        ".k_zero_point", ".v_zero_point", ".input_zero_point", ".output_scale", ".prob_scale", ".prob_output_scale",
        ".fa_q.scale", ".fa_k.scale", ".fa_v.scale", ".fa_q.offset",
        ".fa_k.offset", ".fa_v.offset", ".input_scale", ".input_offset",
    ]
}
