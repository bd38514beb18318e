import Checkpoints

/// Gives the tensors of a checkpoint that transformers saved the names of released checkpoints.
///
/// transformers has names of its own for this architecture. When it saves, it translates them back, but not all: tensors
/// keep the prefix `model.`, and five names are not the released ones. On request (`save_original_format=False`) it writes its
/// own names only, and all experts of a layer as one tensor. Both are read. Released checkpoints have no prefix, which tells
/// them apart.
enum SavedNames {
    /// Returns the tensors of a checkpoint under the names of released ones.
    ///
    /// - Throws: `CheckpointError` if names of both kinds occur, two tensors are the same one, or experts that are stored as
    ///   one tensor have another shape than transformers writes.
    static func released(_ weights: WeightIndex) throws(CheckpointError) -> WeightIndex {
        guard let saved = weights.names.first(where: isSaved) else { return weights }
        if let released = weights.names.first(where: isReleased) {
            let other = try weights.tensor(named: saved).quotedName
            throw try weights.tensor(named: released).refusal(
                "has the name of a released checkpoint, but \(other) that of one which transformers saved",
                advice: "the directory has files of two checkpoints, or was converted in part: keep those of one")
        }
        return try weights.renamed(fromNamesOf: "transformers") { (tensor) throws(CheckpointError) in
            try experts(of: tensor) ?? [tensor.renamed(released(tensor.name))]
        }
    }

    private static let prefix = "model."

    private static func isSaved(_ name: String) -> Bool { name.hasPrefix(prefix) || name == "lm_head.weight" }

    /// Returns true for names that only released checkpoints have. `head.weight` and next-token blocks, which transformers
    /// does not know and which may be added to what it saved, occur in both.
    private static func isReleased(_ name: String) -> Bool {
        [WeightNames.embedding, WeightNames.finalNorm].contains(name) || name.hasPrefix("layers.")
            || name.hasPrefix(WeightNames.headStreams)
    }
}

// MARK: - Names

extension SavedNames {
    /// The released names of parts of transformers' names. A star stands for a number.
    private static let table = [
        "embed_tokens": "embed", "lm_head": "head", "hc_head.hc_fn": "hc_head_fn", "hc_head.hc_base": "hc_head_base",
        "hc_head.hc_scale": "hc_head_scale",
    ].merging(
        layerTable.flatMap { saved, released in
            ["layers.*.", "mtp.*."].map { ($0 + saved, $0 + released) }
        }
    ) { $1 }

    /// The same for what follows the number of a layer.
    private static let layerTable = [
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
        "attn_hc.fn": "hc_attn_fn", "attn_hc.base": "hc_attn_base", "attn_hc.scale": "hc_attn_scale",
        "ffn_hc.fn": "hc_ffn_fn", "ffn_hc.base": "hc_ffn_base", "ffn_hc.scale": "hc_ffn_scale",

        "self_attn.q_a_proj": "attn.wq_a", "self_attn.q_a_norm": "attn.q_norm", "self_attn.q_b_proj": "attn.wq_b",
        "self_attn.kv_proj": "attn.wkv", "self_attn.kv_norm": "attn.kv_norm", "self_attn.sinks": "attn.attn_sink",
        "self_attn.o_a_proj": "attn.wo_a", "self_attn.o_b_proj": "attn.wo_b",
        // So transformers translates `kv_norm` back, as if it were a compressor's.
        "attn.norm": "attn.kv_norm",

        "self_attn.compressor.kv_proj": "attn.compressor.wkv",
        "self_attn.compressor.gate_proj": "attn.compressor.wgate",
        "self_attn.compressor.position_bias": "attn.compressor.ape",
        "self_attn.compressor.kv_norm": "attn.compressor.norm",
        "self_attn.compressor.indexer.q_b_proj": "attn.indexer.wq_b",
        "self_attn.compressor.indexer.scorer.weights_proj": "attn.indexer.weights_proj",
        "self_attn.compressor.indexer.kv_proj": "attn.indexer.compressor.wkv",
        "self_attn.compressor.indexer.gate_proj": "attn.indexer.compressor.wgate",
        "self_attn.compressor.indexer.position_bias": "attn.indexer.compressor.ape",
        "self_attn.compressor.indexer.kv_norm": "attn.indexer.compressor.norm",

        "mlp.gate.weight": "ffn.gate.weight", "mlp.gate.tid2eid": "ffn.gate.tid2eid",
        "mlp.gate.e_score_correction_bias": "ffn.gate.bias",
        "mlp.shared_experts.gate_proj": "ffn.shared_experts.w1", "mlp.shared_experts.up_proj": "ffn.shared_experts.w3",
        "mlp.shared_experts.down_proj": "ffn.shared_experts.w2",
        "mlp.experts.*.gate_proj": "ffn.experts.*.w1", "mlp.experts.*.up_proj": "ffn.experts.*.w3",
        "mlp.experts.*.down_proj": "ffn.experts.*.w2",
    ]

    /// Returns the released name of a tensor. What the table does not have keeps its name without the prefix: it is a
    /// released one, or no name of the model at all.
    private static func released(_ saved: String) -> String {
        let name = saved.hasPrefix(prefix) ? String(saved.dropFirst(prefix.count)) : saved
        let words = name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        let pattern = words.map { isNumber($0) ? "*" : $0 }
        for count in stride(from: words.count, to: 0, by: -1) {
            guard let released = table[pattern.prefix(count).joined(separator: ".")] else { continue }
            var numbers = words.prefix(count).filter(isNumber)[...]
            let renamed = released.split(separator: ".").map { $0 == "*" ? numbers.removeFirst() : String($0) }
            return (renamed + words.dropFirst(count)).joined(separator: ".")
        }
        return name
    }

    private static func isNumber(_ word: String) -> Bool {
        !word.isEmpty && word.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    }
}

// MARK: - Experts in one tensor

extension SavedNames {
    /// Returns the matrices of a layer's experts that one tensor holds; `nil` for other tensors.
    ///
    /// `gate_up_proj` is `[experts, 2 * width, hidden]`, an expert's gate rows before its up rows, and `down_proj` is
    /// `[experts, hidden, width]`.
    ///
    /// - Throws: `CheckpointError` if the shape cannot be that.
    private static func experts(of tensor: StoredTensor) throws(CheckpointError) -> [StoredTensor]? {
        let (gateUp, down) = (".mlp.experts.gate_up_proj", ".mlp.experts.down_proj")
        guard let ending = [gateUp, down].first(where: tensor.name.hasSuffix) else { return nil }
        let names = ending == gateUp ? ["w1", "w3"] : ["w2"]
        // A shape without elements may have any number of experts.
        guard tensor.shape.count == 3, tensor.shape[0] <= DeepSeekV4Configuration.maxExperts,
            tensor.shape[1] % names.count == 0
        else {
            throw tensor.refusal(
                "has the shape \(tensor.shape), but all experts in one tensor have "
                    + (ending == gateUp ? "[experts, 2 * width, hidden]" : "[experts, hidden, width]")
                    + " with at most \(DeepSeekV4Configuration.maxExperts) experts",
                advice: "save the model with transformers again, or use the released checkpoint")
        }
        let layer = released(String(tensor.name.dropLast(ending.count)))
        let rows = tensor.shape[1] / names.count
        return (0..<tensor.shape[0]).flatMap { expert in
            names.enumerated().map { place, name in
                tensor.rows(
                    place * rows..<(place + 1) * rows, ofMatrix: expert,
                    named: "\(layer).ffn.experts.\(expert).\(name).weight")
            }
        }
    }
}
