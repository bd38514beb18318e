import Checkpoints
import DeepSeekV32
import Modeling
import Planning
import Tensors
import TestSupport
import Testing
import braid

@Suite struct KernelShapesTests {
    private func configuration(heads: Int = 4, experts: Int = 8) throws -> DeepSeekConfiguration {
        let text = """
            {"model_type": "deepseek_v32", "vocab_size": 100, "hidden_size": 96, "num_hidden_layers": 3,
             "first_k_dense_replace": 1, "intermediate_size": 48, "max_position_embeddings": 4096,
             "rms_norm_eps": 1e-6, "num_attention_heads": \(heads), "q_lora_rank": 40, "kv_lora_rank": 32,
             "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 4, "rope_theta": 10000,
             "index_n_heads": 2, "index_head_dim": 8, "index_topk": 5, "n_routed_experts": \(experts),
             "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_shared_experts": 1,
             "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1}
            """
        return try DeepSeekConfiguration(ModelConfigurationFile.parse(Array(text.utf8), file: "config.json"))
    }

    @Test
    func `ranks that cannot share heads and experts evenly are refused with a number that can`() throws {
        let model = try configuration(heads: 4, experts: 8)
        #expect(try KernelShapes(model.description, ranks: 2).experts == 4)
        let refusal = #expect(throws: (any Error).self) { try KernelShapes(model.description, ranks: 7) }
        #expect(String(describing: try #require(refusal)).contains("4 heads and 8 experts evenly; try 4"))
        #expect(throws: (any Error).self) { try KernelShapes(model.description, ranks: 0) }
    }

    @Test(arguments: [1, 4])
    func `every operation of a layer runs, and gives each of its bytes and sums a time`(ranks: Int) throws {
        let bed = KernelBed(kernels: .best, cold: ColdMemory(bytes: 64 << 20), scratch: Scratch())
        let cases = try KernelShapes(configuration().description, ranks: ranks).cases(bed)
        let wanted: Set = [
            "matmul", "experts", "index scores", "top-k", "sparse attention", "rms norm", "layer norm", "gate", "rope",
            "swiglu", "add", "quantize",
        ]
        #expect(Set(cases.map(\.operation)) == wanted)
        for measured in cases {
            measured.run()
            #expect(measured.bytes > 0, "\(measured.operation) \(measured.shape)")
        }
    }

    @Test
    func `a rank's experts get its share of the choices`() throws {
        let bed = KernelBed(kernels: .best, cold: ColdMemory(bytes: 64 << 20), scratch: Scratch())
        // A row chooses 2 of 8 experts, so on average 1 of half of them. An expert is three matrices of 96 × 16.
        let cases = try KernelShapes(configuration().description, ranks: 2).cases(bed).filter {
            $0.operation == "experts"
        }
        #expect(cases.filter { $0.type == .bf16 }.map(\.rows) == [1, 8, 64, 512])
        for measured in cases {
            #expect(measured.operations == Double(measured.rows * 2 * 3 * 96 * 16))
            let experts = min(measured.rows, 4)
            #expect(measured.bytes == Double(measured.type.bytes(of: experts * 3 * 96 * 16)))
        }
    }

    @Test
    func `memory that is read in a circle gives weights of every type, one after the other`() {
        let cold = ColdMemory(bytes: 1 << 16)
        let kernels = Kernels.best
        let scratch = Scratch()
        let (x, first, second) = (scratch.rows(1, 64), scratch.rows(1, 64), scratch.rows(1, 64))
        x.fill(1)
        for type in DType.allCases {
            kernels.matmul(x, cold.weight(type, 64, 64), into: first, scratch)
            kernels.matmul(x, cold.weight(type, 64, 64), into: second, scratch)
            // Scales are powers of two, so some of the 64 sums may be exactly 0.
            #expect(first.elements.allSatisfy { $0.isFinite } && first.elements.count { $0 == 0 } < 16, "\(type)")
            #expect(first.elements != second.elements, "\(type)")
        }
    }
}
