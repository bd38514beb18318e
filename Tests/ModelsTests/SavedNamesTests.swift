import Checkpoints
import Foundation
import Modeling
import Models
import TestSupport
import Testing

/// The names of a DeepSeek-V4 model's tensors in a released checkpoint, and those that `save_pretrained` of transformers 5.23
/// gave the same tensors of a small random model: by default, and with `save_original_format=False`.
private let names: [(released: String, byDefault: String, own: String)] = [
    ("embed.weight", "model.embed_tokens.weight", "model.embed_tokens.weight"),
    ("head.weight", "head.weight", "lm_head.weight"),
    ("norm.weight", "model.norm.weight", "model.norm.weight"),
    ("hc_head_fn", "model.hc_head.hc_fn", "model.hc_head.hc_fn"),
    ("hc_head_base", "model.hc_head.hc_base", "model.hc_head.hc_base"),
    ("hc_head_scale", "model.hc_head.hc_scale", "model.hc_head.hc_scale"),
]

/// The same for the tensors of a layer, without those of routed experts, behind `layers.N.` and `model.layers.N.`.
private let layerNames: [(released: String, byDefault: String, own: String)] = [
    ("attn_norm.weight", "attn_norm.weight", "input_layernorm.weight"),
    ("ffn_norm.weight", "ffn_norm.weight", "post_attention_layernorm.weight"),
    ("hc_attn_fn", "hc_attn_fn", "attn_hc.fn"), ("hc_attn_base", "hc_attn_base", "attn_hc.base"),
    ("hc_attn_scale", "hc_attn_scale", "attn_hc.scale"), ("hc_ffn_fn", "hc_ffn_fn", "ffn_hc.fn"),
    ("hc_ffn_base", "hc_ffn_base", "ffn_hc.base"), ("hc_ffn_scale", "hc_ffn_scale", "ffn_hc.scale"),
    ("attn.attn_sink", "attn.attn_sink", "self_attn.sinks"),
    ("attn.kv_norm.weight", "attn.norm.weight", "self_attn.kv_norm.weight"),
    ("attn.q_norm.weight", "attn.q_norm.weight", "self_attn.q_a_norm.weight"),
    ("attn.wkv.weight", "attn.wkv.weight", "self_attn.kv_proj.weight"),
    ("attn.wo_a.weight", "attn.wo_a.weight", "self_attn.o_a_proj.weight"),
    ("attn.wo_b.weight", "attn.wo_b.weight", "self_attn.o_b_proj.weight"),
    ("attn.wq_a.weight", "attn.wq_a.weight", "self_attn.q_a_proj.weight"),
    ("attn.wq_b.weight", "attn.wq_b.weight", "self_attn.q_b_proj.weight"),
    ("attn.compressor.ape", "attn.compressor.ape", "self_attn.compressor.position_bias"),
    ("attn.compressor.norm.weight", "attn.compressor.norm.weight", "self_attn.compressor.kv_norm.weight"),
    ("attn.compressor.wgate.weight", "attn.compressor.wgate.weight", "self_attn.compressor.gate_proj.weight"),
    ("attn.compressor.wkv.weight", "attn.compressor.wkv.weight", "self_attn.compressor.kv_proj.weight"),
    (
        "attn.indexer.compressor.ape", "attn.indexer.compressor.ape",
        "self_attn.compressor.indexer.position_bias"
    ),
    (
        "attn.indexer.compressor.norm.weight", "attn.indexer.compressor.norm.weight",
        "self_attn.compressor.indexer.kv_norm.weight"
    ),
    (
        "attn.indexer.compressor.wgate.weight", "attn.indexer.compressor.wgate.weight",
        "self_attn.compressor.indexer.gate_proj.weight"
    ),
    (
        "attn.indexer.compressor.wkv.weight", "attn.indexer.compressor.wkv.weight",
        "self_attn.compressor.indexer.kv_proj.weight"
    ),
    (
        "attn.indexer.weights_proj.weight", "attn.indexer.weights_proj.weight",
        "self_attn.compressor.indexer.scorer.weights_proj.weight"
    ),
    ("attn.indexer.wq_b.weight", "attn.indexer.wq_b.weight", "self_attn.compressor.indexer.q_b_proj.weight"),
    ("ffn.gate.weight", "ffn.gate.weight", "mlp.gate.weight"),
    ("ffn.gate.tid2eid", "ffn.gate.tid2eid", "mlp.gate.tid2eid"),
    ("ffn.gate.bias", "ffn.gate.bias", "mlp.gate.e_score_correction_bias"),
    ("ffn.shared_experts.w1.weight", "ffn.shared_experts.w1.weight", "mlp.shared_experts.gate_proj.weight"),
    ("ffn.shared_experts.w2.weight", "ffn.shared_experts.w2.weight", "mlp.shared_experts.down_proj.weight"),
    ("ffn.shared_experts.w3.weight", "ffn.shared_experts.w3.weight", "mlp.shared_experts.up_proj.weight"),
]

/// The names of a routed expert's matrices, of which transformers has no own ones: those are what repackagings have.
private let expertNames = ["w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"]

/// The ways in which a checkpoint that transformers saved has names.
enum SavedForm: CaseIterable {
    /// What `save_pretrained` writes.
    case byDefault
    /// What it writes with `save_original_format=False`: all experts of a layer are one tensor.
    case own
    /// The same with the experts' matrices as tensors of their own.
    case ownWithoutFusing
}

extension StoredCheckpoint {
    /// Returns the checkpoint as transformers saves it. Tensors of next-token blocks, which it does not save, keep their
    /// names.
    func saved(_ form: SavedForm) throws -> StoredCheckpoint {
        var copy = self
        copy.tensors = try tensors.map { tensor in
            var renamed = tensor
            renamed.name = try Self.saved(tensor.name, form)
            return renamed
        }
        if form == .own { copy.fuseExperts() }
        return copy
    }

    private static func saved(_ name: String, _ form: SavedForm) throws -> String {
        func pick(_ row: (released: String, byDefault: String, own: String)) -> String {
            form == .byDefault ? row.byDefault : row.own
        }
        if let row = names.first(where: { $0.released == name }) { return pick(row) }
        let words = name.split(separator: ".")
        guard words[0] == "layers" else { return name }
        let rest = words.dropFirst(2).joined(separator: ".")
        let prefix = "model.layers.\(words[1])."
        if rest.hasPrefix("ffn.experts.") {
            if form == .byDefault { return prefix + rest }
            let matrix = try #require(expertNames[String(words[5])])
            return prefix + "mlp.experts.\(words[4]).\(matrix)." + words[6]
        }
        if let row = layerNames.first(where: { $0.released == rest }) { return prefix + pick(row) }
        // Scales have the names of their matrices.
        let matrix = try #require(rest.hasSuffix(".scale") ? rest.dropLast("scale".count) + "weight" : nil)
        let row = try #require(layerNames.first { $0.released == matrix })
        return prefix + pick(row).dropLast("weight".count) + "scale"
    }

    /// Puts the matrices of all experts of a layer into two tensors, `[experts, 2 * width, hidden]` and
    /// `[experts, hidden, width]`.
    private mutating func fuseExperts() {
        let experts = tensors.filter { $0.name.contains(".mlp.experts.") }
        tensors.removeAll { $0.name.contains(".mlp.experts.") }
        let matrices = Dictionary(uniqueKeysWithValues: experts.map { ($0.name, $0) })
        for prefix in Set(experts.map { $0.name.components(separatedBy: ".mlp.experts.")[0] + ".mlp.experts." }) {
            let count = experts.count { $0.name.hasPrefix(prefix) } / 3
            for (name, parts) in [("gate_up_proj", ["gate_proj", "up_proj"]), ("down_proj", ["down_proj"])] {
                let all = (0..<count).flatMap { expert in parts.map { matrices["\(prefix)\(expert).\($0).weight"]! } }
                let (rows, columns) = (all[0].shape[0], all[0].shape[1])
                tensors.append(
                    (prefix + name, all[0].type, [count, parts.count * rows, columns], all.flatMap(\.bytes)))
            }
        }
    }
}

@Suite struct `A DeepSeek-V4 checkpoint that transformers saved` {
    @Test(arguments: SavedForm.allCases) func `has the answers of the released one`(form: SavedForm) throws {
        let released = try StoredCheckpoint(golden: "v4")
        let saved = try released.saved(form)
        #expect(!Set(saved.tensors.map(\.name)).contains("embed.weight"))
        #expect((saved.tensors.count < released.tensors.count) == (form == .own))
        #expect(try saved.logits() == released.logits())
    }

    @Test(arguments: [SavedForm.byDefault, .ownWithoutFusing])
    func `has the answers of the released one also with scales`(form: SavedForm) throws {
        let released = try StoredCheckpoint(golden: "v4-fp8-fp4")
        #expect(try released.saved(form).logits() == released.logits())
    }

    @Test(arguments: SavedForm.allCases)
    func `may have the released next-token block beside it`(form: SavedForm) throws {
        let released = try StoredCheckpoint(golden: "v4-drafts")
        func drafts(_ checkpoint: StoredCheckpoint) throws -> [[Float]] {
            Forward(try checkpoint.load(drafts: true), isRecording: false).drafts([3, 1, 4, 1, 5, 9], count: 3)
        }
        #expect(try drafts(released.saved(form)) == drafts(released))
    }

    @Test func `is refused where some names are released ones`() throws {
        var mixed = try StoredCheckpoint(golden: "v4").saved(.byDefault)
        mixed["model.layers.1.attn.wkv.weight"].name = "layers.1.attn.wkv.weight"
        let error = try refusal { try mixed.load() }
        #expect(error.subject == .tensor("layers.1.attn.wkv.weight"))
        #expect(error.problem.contains("that of one which transformers saved"), "\(error)")
    }

    @Test func `is refused with one tensor under two names`() throws {
        var double = try StoredCheckpoint(golden: "v4").saved(.byDefault)
        var copy = double["model.layers.1.attn.wkv.weight"]
        copy.name = "model.layers.1.self_attn.kv_proj.weight"
        double.tensors.append(copy)
        let error = try refusal { try double.load() }
        #expect(error.subject == .tensor("model.layers.1.self_attn.kv_proj.weight"), "\(error)")
        #expect(error.problem.contains("\"model.layers.1.attn.wkv.weight\""), "\(error)")
    }

    @Test func `is refused by the names that it has`() throws {
        let saved = try StoredCheckpoint(golden: "v4").saved(.own)
        var unknown = saved
        unknown.tensors.append(("model.layers.0.self_attn.q_b_norm.weight", .f32, [1], [0, 0, 0x80, 0x3F]))
        #expect(try refusal { try unknown.load() }.subject == .tensor("model.layers.0.self_attn.q_b_norm.weight"))
        var missing = saved
        missing.remove("model.layers.1.self_attn.sinks")
        let error = try refusal { try missing.load() }
        #expect(error.problem.contains("under this name or that of transformers"), "\(error)")
        var narrow = saved
        let name = "model.layers.2.mlp.experts.gate_up_proj"
        let shape = narrow[name].shape
        narrow[name].shape = [shape[0], shape[2], shape[1]]
        #expect(try refusal { try narrow.load() }.subject == .tensor("\(name)[0, 0:\(shape[2] / 2)]"))
        narrow[name].shape = [shape[0] * shape[1], shape[2]]
        let flat = try refusal { try narrow.load() }
        #expect(flat.subject == .tensor(name) && flat.problem.contains("[experts, 2 * width, hidden]"), "\(flat)")
        var endless = saved
        (endless[name].shape, endless[name].bytes) = ([1 << 20, 2, 0], [])
        let refused = try refusal { try endless.load() }
        #expect(refused.subject == .tensor(name) && refused.problem.contains("at most 1024 experts"), "\(refused)")
        var more = saved
        more[name].bytes += more[name].bytes
        more[name].shape[0] *= 2
        #expect(try refusal { try more.load() }.problem.contains("n_routed_experts \(shape[0])"))
    }
}
