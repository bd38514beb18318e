import ArgumentParser
import Foundation
import Parallelism
import TestSupport
import Testing
import Tokenization
import braid

@Suite struct `Parallel options` {
    private func request(_ arguments: String, environment: [String: String] = [:]) throws -> ParallelRequest {
        try ParallelOptions.parse(arguments.split(separator: " ").map(String.init)).request(environment: environment)
    }

    @Test func `without any ask for nothing`() throws {
        #expect(try request("") == ParallelRequest())
    }

    @Test(arguments: [
        (ParallelRequest.Size.ranks, ["tp-size", "tp", "tensor-parallel-size"]),
        (
            .context,
            ["attn-cp-size", "cp-size", "attention-context-parallel-size", "prefill-context-parallel-size"]
        ),
        (.data, ["attn-dp-size", "attention-data-parallel-size"]),
        (.expert, ["ep-size", "ep", "expert-parallel-size"]),
        (.pipeline, ["pp-size", "pipeline-parallel-size"]),
        (.dense, ["moe-dense-tp-size"]),
    ])
    func `are known by all their names`(size: ParallelRequest.Size, names: [String]) throws {
        var expected = ParallelRequest()
        expected[size] = 4
        for name in names {
            #expect(try request("--\(name) 4") == expected, "\(name)")
            #expect(try request("--\(name)=4 --\(names[0]) 4") == expected, "\(name)")
        }
    }

    @Test func `leave a rank to one thread, or to as many as are wanted, and are no other layout for that`() throws {
        #expect(try ParallelOptions.parse([]).threads == 1)
        let two = try ParallelOptions.parse(["--threads-per-rank", "2"])
        #expect(try two.threads == 2 && two.request() == request(""))
    }

    @Test func `with two values for one size are a problem`() throws {
        let twice = try request("--tp 4 --cp-size 2 --tp-size 8 --attn-cp-size 2")
        #expect(twice.problems.map(\.description) == ["tp_size: given as 4 and 8; give it once"])
        #expect(try request("--cp-strategy zigzag --nsa-prefill-cp-mode round-robin-split").problems.count == 1)
        #expect(try request("--cp-strategy zigzag --nsa-prefill-cp-mode in-seq-split").problems.isEmpty)
        #expect(try request("--moe-a2a-backend none --moe-a2a-backend deepep").problems.count == 1)
        #expect(
            try request("--dp 2 --attn-dp-size 4 --enable-dp-attention").problems.map(\.parameter) == ["attn_dp_size"])
    }

    @Test(arguments: ["dp-size", "dp", "data-parallel-size"])
    func `take replicas for groups of ranks only with a flag`(name: String) throws {
        let groups = try request("--\(name) 2 --enable-dp-attention")
        #expect(groups.attnDPSize == 2 && groups.problems.isEmpty)
        let replicas = try request("--\(name) 2")
        #expect(replicas.attnDPSize == nil)
        #expect(replicas.problems.map(\.parameter) == ["dp_size"])
        #expect(replicas.problems.first?.nearestLegal == 1)
        #expect(try request("--\(name) 1") == ParallelRequest())
    }

    @Test(arguments: [
        ("interleave", PartitionStrategy.interleaved), ("round-robin-split", .interleaved), ("zigzag", .zigzag),
        ("in-seq-split", .zigzag), ("contiguous", .contiguous),
    ])
    func `know strategies by both vocabularies`(name: String, strategy: PartitionStrategy) throws {
        #expect(try request("--cp-strategy \(name)").strategy == strategy)
        #expect(try request("--nsa-prefill-cp-mode \(name)").strategy == strategy)
    }

    @Test func `know the exchanges of rows and experts`() throws {
        #expect(try request("--moe-a2a-backend none").exchange == .gathered)
        #expect(try request("--moe-a2a-backend alltoall").exchange == .allToAll)
        #expect(try request("--moe-a2a-backend deepep").exchange == .allToAll)
    }

    @Test(arguments: ["enable-prefill-cp", "enable-nsa-prefill-context-parallel"])
    func `fill the ranks with context on a flag`(flag: String) throws {
        let shape = ModelShape(
            layers: 61, heads: 128, valueWidth: 128, experts: 256, expertWidth: 2048, denseWidth: 18432,
            sharedWidth: 2048)
        #expect(try request("--tp 8 --\(flag)").resolve(for: shape).context == 8)
        #expect(try request("--tp 8 --\(flag) --cp-size 4").resolve(for: shape).context == 4)
    }

    @Test(arguments: ["SGLANG_PP_LAYER_PARTITION", "VLLM_PP_LAYER_PARTITION"])
    func `read the variables with which users of SGLang and vLLM give the layers of each stage`(
        variable: String
    ) throws {
        #expect(try request("", environment: [variable: "31,30"]).ppLayerPartition == [31, 30])
        #expect(try request("--pp-layer-partition 31,30", environment: [variable: "31,30"]).problems.isEmpty)
        #expect(try request("", environment: [variable: ""]) == ParallelRequest())
        for (options, text) in [("--pp-layer-partition 31,30", "30,31"), ("", "31;30"), ("", "0,61")] {
            let problems = try request(options, environment: [variable: text]).problems
            #expect(problems.map(\.parameter) == [variable], "\(text)")
        }
    }

    @Test func `take the layers of each stage`() throws {
        #expect(try request("--pp-layer-partition 31,30").ppLayerPartition == [31, 30])
        #expect(try request("--pp-layer-partition=61 --pp-size 1").ppLayerPartition == [61])
    }

    @Test(arguments: [
        "--tp-size four", "--tp-size 1.5", "--cp-strategy diagonal", "--moe-a2a-backend nccl",
        "--pp-layer-partition 31,,30", "--pp-layer-partition 0",
    ])
    func `refuse what is no value`(arguments: String) {
        #expect(throws: (any Error).self) { try request(arguments) }
    }

    /// The command with which GLM-5 was asked for, with the model's path and the addresses replaced.
    @Test func `of SGLang's command for GLM-5 are known`() throws {
        let parallel = "--tp 8 --pp-size 2 --attn-cp-size 8 --nsa-prefill-cp-mode round-robin-split"
        let command = """
            serve --model-path GLM-5-FP8 \(parallel) --tool-call-parser glm47 --reasoning-parser glm45 \
            --context-length 131072 --nnodes 2 --node-rank 1 --dist-init-addr 127.0.0.1:20000 --host 0.0.0.0 --port 30000
            """
        _ = try Braid.parseAsRoot(command.split(separator: " ").map(String.init))
        let shape = ModelShape(
            layers: 78, heads: 64, valueWidth: 256, experts: 256, expertWidth: 2048, denseWidth: 12288,
            sharedWidth: 2048)
        let layout = try request(parallel).resolve(for: shape)
        #expect(layout.context == 8 && layout.pipeline == 2 && layout.strategy == .interleaved)
        #expect(layout.isBitwiseEqual(for: shape))
    }
}

@Suite struct `Parser options` {
    @Test func `are refused if they name the parser of another chat format`() throws {
        let tokenizer = try Tokenizer(directory: URL(fileURLWithPath: Golden.root + "/Models/demo"))
        func check(_ arguments: String) throws {
            _ = try ParserOptions.parse(arguments.split(separator: " ").map(String.init)).chatFormat(tokenizer)
        }
        try check("")
        try check("--reasoning-parser deepseek-v3 --tool-call-parser auto")
        try check("--reasoning-parser deepseek_v3 --tool-call-parser deepseekv31")
        try check("--tool-call-parser deepseek_v31")
        for wrong in ["--reasoning-parser glm45", "--tool-call-parser glm47", "--tool-call-parser deepseekv32"] {
            let error = try #require(throws: (any Error).self) { try check(wrong) }
            #expect("\(error)".contains(wrong.split(separator: " ")[0]) && "\(error)".contains("auto"))
        }
        try check("--chat-encoder checkpoint")
        let error = try #require(throws: (any Error).self) { try check("--chat-encoder recipe") }
        #expect("\(error)".contains("--chat-encoder") && "\(error)".contains("DeepSeek-V4"))
    }
}
