import Checkpoints
import DeepSeekV32
import Modeling
import Planning
import Testing
import braid

@Suite struct FloatingPointOperationsTests {
    /// Returns the demo model's shape, except that few keys are selected.
    private func configuration(_ type: String) throws -> DeepSeekConfiguration {
        let text = """
            {"model_type": "\(type)", "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 3,
             "first_k_dense_replace": 1, "intermediate_size": 48, "max_position_embeddings": 4096,
             "rms_norm_eps": 1e-6, "num_attention_heads": 2, "q_lora_rank": 16, "kv_lora_rank": 8,
             "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 4, "rope_theta": 10000,
             "index_n_heads": 2, "index_head_dim": 8, "index_topk": 5, "n_routed_experts": 4,
             "num_experts_per_tok": 2, "moe_intermediate_size": 8, "n_shared_experts": 1,
             "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1}
            """
        return try DeepSeekConfiguration(ModelConfigurationFile.parse(Array(text.utf8), file: "config.json"))
    }

    /// Returns the operations of attention and indexing, summed over rows and layers.
    private func perKey(_ model: DeepSeekConfiguration, _ positions: Range<Int>) -> Int {
        var operations = 0
        for visible in positions.map({ $0 + 1 }) {
            let keys = min(visible, model.indexer?.topK ?? visible)
            operations += 2 * model.heads * keys * (model.latentWidth + model.ropeWidth)
            operations += 2 * model.heads * keys * model.latentWidth
            if let indexer = model.indexer, visible > indexer.topK {
                operations += 2 * indexer.heads * visible * (indexer.width + 1)
            }
        }
        return operations * model.layers
    }

    @Test(arguments: ["deepseek_v32", "deepseek_v3"], [0..<1, 0..<5, 0..<6, 3..<20, 5..<6, 7..<9])
    func `the closed form is the sum over rows`(type: String, positions: Range<Int>) throws {
        let model = try configuration(type)
        let head = model.vocabularySize * model.hiddenSize
        let matrices = 2 * ((model.description.parameters.active - 2 * head) * positions.count + head)
        let counted = FloatingPointOperations(model.description).count(positions: positions, outputs: 1)
        #expect(counted == Double(matrices + perKey(model, positions)))
    }

    @Test func `a prompt in two parts costs what it costs in one, but for the head`() throws {
        let model = try configuration("deepseek_v32")
        let operations = FloatingPointOperations(model.description)
        let parts = [0..<7, 7..<30].map { operations.count(positions: $0, outputs: 1) }.reduce(0, +)
        #expect(parts == operations.count(positions: 0..<30, outputs: 2))
    }
}
