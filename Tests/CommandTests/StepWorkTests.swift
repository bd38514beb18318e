import Checkpoints
import DeepSeekV32
import KVCache
import Modeling
import Planning
import Tensors
import Testing
import braid

@Suite struct StepWorkTests {
    /// Returns a model of three layers, the first of them dense; a token takes 2 of 4 experts, and 5 keys are selected.
    private func configuration() throws -> DeepSeekConfiguration {
        let text = """
            {"model_type": "deepseek_v32", "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 3,
             "first_k_dense_replace": 1, "intermediate_size": 48, "max_position_embeddings": 4096,
             "rms_norm_eps": 1e-6, "num_attention_heads": 2, "q_lora_rank": 16, "kv_lora_rank": 8,
             "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 4, "rope_theta": 10000,
             "index_n_heads": 2, "index_head_dim": 8, "index_topk": 5, "n_routed_experts": 4,
             "num_experts_per_tok": 2, "moe_intermediate_size": 8, "n_shared_experts": 1,
             "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1, "torch_dtype": "bfloat16"}
            """
        return try DeepSeekConfiguration(ModelConfigurationFile.parse(Array(text.utf8), file: "config.json"))
    }

    private func bytes(_ requests: [Range<Int>], cacheType: CacheType = .float32) throws -> [String: Double] {
        let work = StepWork(
            try configuration().description, format: try configuration().cacheFormat(cacheType, pageSize: 128),
            requests: requests, outputs: requests.count)
        return Dictionary(uniqueKeysWithValues: work.parts.map { ($0.name, $0.bytes) })
    }

    @Test(arguments: [0..<1, 0..<9, 7..<8, 7..<30])
    func `the parts' operations are all that are counted`(positions: Range<Int>) throws {
        let model = try configuration()
        let work = StepWork(
            model.description, format: model.cacheFormat(.float32, pageSize: 128), requests: [positions], outputs: 1)
        #expect(
            work.parts.reduce(0) { $0 + $1.operations }
                == FloatingPointOperations(model.description).count(positions: positions, outputs: 1))
    }

    @Test func `one row reads the weights it uses and the keys it selects`() throws {
        let (model, read) = (try configuration(), try bytes([20..<21]))
        // The weights are in BF16, without the embedding's table.
        #expect(read["matrices"] == 2 * Double(model.description.parameters.active - 100 * 32))
        // The keys of 3 layers in F32 are all 21 index keys of 8, and 5 latents of 8 with rotary keys of 4.
        #expect(read["index scores"] == 3.0 * 4 * 21 * 8)
        #expect(read["attention"] == 3.0 * 4 * 5 * 12)
        #expect(try bytes([20..<21], cacheType: .bfloat16)["index scores"] == 3.0 * 2 * 21 * 8)
    }

    @Test func `where no key has to be chosen no index key is read`() throws {
        let read = try bytes([4..<5])
        #expect(read["index scores"] == 0)
        #expect(read["attention"] == 3.0 * 4 * 5 * 12)
    }

    @Test func `rows share weights and those of a prompt also keys`() throws {
        let (one, two) = (try bytes([20..<21]), try bytes([20..<21, 20..<21]))
        #expect(two["index scores"] == 2 * one["index scores"]!)
        // Two rows use 4 (1 - 1/4) = 3 of 4 experts on average: 1.5 times those of one row, in 2 layers.
        let expert = 2.0 * 3 * 32 * 8
        #expect(abs(two["matrices"]! - one["matrices"]! - 2 * expert) < 1e-6)
        let chunk = try bytes([0..<21])
        #expect(chunk["index scores"] == one["index scores"])
        #expect(chunk["attention"] == 3.0 * 4 * 21 * 12)
    }

    @Test func `weights are read in the formats of the checkpoint, and the head's for logits only`() throws {
        let configuration = try configuration()
        func matrices(_ formats: WeightFormats, outputs: Int = 1) -> Double {
            var model = configuration.description
            model.formats = formats
            return StepWork(
                model, format: configuration.cacheFormat(.float32, pageSize: 128), requests: [20..<21], outputs: outputs
            ).parts[0].bytes
        }
        let (plain, head) = (matrices(WeightFormats(.bf16)), 2.0 * 100 * 32)
        #expect(plain - matrices(WeightFormats(.bf16), outputs: 0) == head)
        var formats = WeightFormats(.bf16)
        formats.experts = WeightFormat(.int8)
        // Each of 2 layers with experts reads 2 of them, in one byte an element instead of two.
        #expect(plain - matrices(formats) == 2 * 2 * 3 * 32 * 8)
    }

    @Test func `a prompt's work is that of its chunks`() throws {
        let (model, format) = (
            try configuration().description, try configuration().cacheFormat(.float32, pageSize: 128)
        )
        let whole = StepWork.prefill(model, format: format, tokens: 21, chunk: 8, outputs: 1)
        var sum = StepWork(model, format: format, requests: [0..<8], outputs: 0)
        sum.add(StepWork(model, format: format, requests: [8..<16], outputs: 0))
        sum.add(StepWork(model, format: format, requests: [16..<21], outputs: 1))
        #expect(whole == sum)
    }
}
