import Checkpoints
import Foundation
import JSON
import Modeling
import Models
import TestSupport
import Testing

/// A golden checkpoint with another `config.json`, or with further tensors.
private final class ChangedCheckpoint {
    let path = NSTemporaryDirectory() + "braid-models-\(UUID().uuidString)"

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// - Parameters:
    ///   - changes: members of `config.json` by name, as JSON.
    ///   - extra: tensors that the checkpoint has besides.
    init(_ golden: String, _ changes: [String: String] = [:], extra: SafeTensorsWriter? = nil) throws {
        let source = Golden.root + "/Tests/Golden/\(golden)/checkpoint"
        let manager = FileManager.default
        try manager.createDirectory(atPath: path, withIntermediateDirectories: true)
        for name in try manager.contentsOfDirectory(atPath: source) where name != "config.json" {
            try manager.createSymbolicLink(atPath: "\(path)/\(name)", withDestinationPath: "\(source)/\(name)")
        }
        let config = try Data(contentsOf: URL(fileURLWithPath: source + "/config.json"))
        var members = try JSONValue(parsing: config, limits: .strict).object!.filter { changes[$0.key] == nil }
        for (name, text) in changes {
            members.append(JSONMember(name, try JSONValue(parsing: Data(text.utf8), limits: .strict)))
        }
        try Data(JSONValue.object(members).pythonText.utf8).write(to: URL(fileURLWithPath: path + "/config.json"))
        guard let extra else { return }
        // Without `model.safetensors`, every file of the directory is read.
        try manager.moveItem(atPath: path + "/model.safetensors", toPath: path + "/weights.safetensors")
        try extra.write(to: path + "/extra.safetensors")
    }

    func load() throws { _ = try ModelDirectory(path).load() }
}

/// Tensors that belong to a model but for which `config.json` has no place.
@Suite struct `Tensors that a model would not read` {
    private typealias Case = (golden: String, changes: [String: String], tensor: String, words: [String])

    private static let cases: [Case] = [
        ("v3", ["num_hidden_layers": "2"], "model.layers.2.", ["layer 2", "num_hidden_layers 2"]),
        ("v3", ["n_shared_experts": "0"], "shared_experts", ["n_shared_experts 0"]),
        ("v3", ["n_shared_experts": "null"], "shared_experts", ["n_shared_experts 0"]),
        ("v3", ["n_routed_experts": "8"], ".experts.", ["routed expert", "n_routed_experts 8"]),
        // Layer 1 is taken for the next-token block, but is none.
        ("v3-drafts", ["num_hidden_layers": "1"], "model.layers.1.", ["layer 1", "num_hidden_layers 1"]),
        ("v32", ["model_type": #""deepseek_v3""#], "indexer", ["layer 0 of this deepseek_v3 model (dense)"]),
        ("v32-fp8", ["model_type": #""deepseek_v3""#], "indexer", ["layer 0 of this deepseek_v3 model (dense)"]),
        (
            "v4", ["num_hidden_layers": "2", "compress_ratios": "[0, 4, 0]"], "layers.2.",
            ["layer 2", "num_hidden_layers 2"]
        ),
        ("v4", ["n_routed_experts": "4"], ".experts.", ["routed expert 4", "n_routed_experts 4"]),
        ("v4", ["compress_ratios": "[0, 0, 128, 0]"], "layers.1.attn.", ["layer 1", "(window"]),
        (
            "v4-fp8-fp4", ["num_hidden_layers": "1", "num_hash_layers": "1", "compress_ratios": "[0, 0]"], "layers.1.",
            ["num_hidden_layers 1"]
        ),
    ]

    @Test(arguments: cases.indices) func `are refused, naming the key of config.json`(number: Int) throws {
        let (golden, changes, tensor, words) = Self.cases[number]
        let checkpoint = try ChangedCheckpoint(golden, changes)
        let error = try refusal { try checkpoint.load() }
        guard case .tensor(let name) = error.subject else {
            Issue.record("\(error)")
            return
        }
        #expect(name.contains(tensor), "\(error)")
        for word in words { #expect(error.problem.contains(word), "\(error)") }
        #expect(error.advice.contains("config.json"))
    }

    @Test(arguments: [("v3-drafts", "0"), ("glm-drafts", "null"), ("v4-drafts", "0")])
    func `are none of a next-token block that is turned off`(golden: String, count: String) throws {
        try ChangedCheckpoint(golden, ["num_nextn_predict_layers": count]).load()
    }

    @Test(arguments: Golden.cases + Golden.draftingCases) func `are in no released form`(golden: String) throws {
        try ChangedCheckpoint(golden).load()
    }

    @Test(arguments: [
        ("v32", "model.layers.0.self_attn.rotary_emb.inv_freq"), ("v32", "model.layers.1.self_attn.attn.k_scale"),
        ("v32", "model.layers.0.self_attn.kv_scale"), ("v32", "model.layers.1.self_attn.fa_k.offset"),
        ("v32", "model.layers.0.self_attn.q_scale"), ("v32", "model.layers.0.self_attn.attn.k_zero_point"),
        ("v32", "model.layers.0.self_attn.q_proj.output_scale"), ("v32", "model.layers.0.mlp.up_proj.input_zero_point"),
        ("v32-drafts", "model.layers.2.self_attn.q_proj.input_scale"), ("v32-drafts", "model.layers.2.anything"),
        ("v4-drafts", "mtp.0.emb.tok_emb.weight"), ("v4-drafts", "mtp.0.head.weight"),
    ])
    func `are no such that cannot change an answer`(golden: String, tensor: String) throws {
        var extra = SafeTensorsWriter()
        extra.add(tensor, [1], [0.5])
        try ChangedCheckpoint(golden, extra: extra).load()
    }

    @Test(arguments: [
        ("v32", "model.norm.weight_scale_inv"), ("v32", "model.layers.1.input_layernorm.weight_scale"),
        ("v32", "model.layers.0.self_attn.q_a_layernorm.scale"), ("v32", "model.norm.weight_offset"),
        ("v32-fp8", "model.layers.0.self_attn.o_proj.weight_zero_point"), ("v4", "layers.0.ffn.gate.tid2eid_scale"),
    ])
    func `are scales of vectors, and offsets that are not zero`(golden: String, tensor: String) throws {
        var extra = SafeTensorsWriter()
        extra.add(tensor, [1], [0.5])
        let checkpoint = try ChangedCheckpoint(golden, extra: extra)
        #expect(try refusal { try checkpoint.load() }.subject == .tensor(tensor))
    }

    @Test(arguments: [
        "model.layers.1.input_layernorm.bias", "model.norm.bias", "model.layers.1.self_attn.q_a_proj.bias",
    ])
    func `are biases that add something, and none of zeros`(tensor: String) throws {
        for value: Float in [0, 0.5] {
            var extra = SafeTensorsWriter()
            extra.add(tensor, [2], [0, value])
            let checkpoint = try ChangedCheckpoint("v32", extra: extra)
            guard value != 0 else {
                try checkpoint.load()
                continue
            }
            #expect(try refusal { try checkpoint.load() }.subject == .tensor(tensor))
        }
    }

    /// Repackagings and what transformers saves count a block in `config.json` that the files lack.
    @Test(arguments: [
        ("v32", 1, false), ("v32", 0, false), ("v32-drafts", 1, true), ("v4", 1, false), ("v4-drafts", 1, true),
    ])
    func `may be no next-token block, though config.json counts one`(golden: String, count: Int, isThere: Bool) throws {
        let checkpoint = try ChangedCheckpoint(golden, ["num_nextn_predict_layers": "\(count)"])
        let directory = try ModelDirectory(checkpoint.path)
        let weights = try directory.openWeights(.auto)
        #expect(directory.hasNextTokenBlock(weights) == isThere)
        #expect(directory.hasNextTokenBlock(nil) == (count > 0))
        #expect(try directory.model(weights, drafts: isThere).canDraft == isThere)
    }

    @Test func `are not the copies that tied embeddings allow`() throws {
        let checkpoint = try ChangedCheckpoint("v32", ["tie_word_embeddings": "true"])
        let error = try refusal { try checkpoint.load() }
        #expect(error.problem.contains("tie_word_embeddings"), "\(error)")
    }
}
