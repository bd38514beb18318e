import ArgumentParser
import Foundation
import Inference
package import Parallelism

/// These options determine how many ranks run a model and how they divide it, with the names that users of other
/// engines know.
package struct ParallelOptions: ParsableArguments, Sendable {
    // Sizes are lists, so that two names of an option with different values are noticed.

    @Option(
        name: [.customLong("tp-size"), .customLong("tp"), .customLong("tensor-parallel-size")],
        help: """
            Ranks of each stage: attn-dp-size × attn-cp-size × ranks that share the heads. Default: the fewest that \
            the other sizes divide.
            """, transform: Parsing.ranks)
    var tpSize: [Int] = []

    @Option(
        name: [
            .customLong("attn-cp-size"), .customLong("cp-size"), .customLong("attention-context-parallel-size"),
            .customLong("prefill-context-parallel-size"),
        ],
        help: "Ranks that share the rows of each prompt; 4 alone means four ranks. Default: 1.",
        transform: Parsing.ranks)
    var attnCpSize: [Int] = []

    @Option(
        name: [.customLong("attn-dp-size"), .customLong("attention-data-parallel-size")],
        help: "Groups of ranks with different requests. Default: 1.", transform: Parsing.ranks)
    var attnDpSize: [Int] = []

    @Option(
        name: [.customLong("dp-size"), .customLong("dp"), .customLong("data-parallel-size")],
        help: "With --enable-dp-attention the same as --attn-dp-size.", transform: Parsing.ranks)
    var dpSize: [Int] = []

    @Flag(help: "Makes --dp-size mean groups of ranks within one server.")
    var enableDpAttention = false

    @Option(
        name: [.customLong("ep-size"), .customLong("ep"), .customLong("expert-parallel-size")],
        help: """
            Ranks with different experts; the others share each expert's width. Default: the most that give the bits \
            of one rank.
            """, transform: Parsing.ranks)
    var epSize: [Int] = []

    @Option(
        name: [.customLong("pp-size"), .customLong("pipeline-parallel-size")],
        help: "Stages of consecutive layers, each with tp-size ranks. Default: those of pp-layer-partition, or 1.",
        transform: Parsing.ranks)
    var ppSize: [Int] = []

    @Option(help: "Layers of each stage, such as 31,30. Default: as even as can be, the first stages one longer.")
    var ppLayerPartition: LayerCounts?

    @Option(
        name: [.customLong("dcp-size"), .customLong("dcp"), .customLong("decode-context-parallel-size")],
        help: """
            Ranks among which each request's keys are divided for query-gather attention: where a step has few rows of \
            long contexts, as in decoding. Divides attn-cp-size × the ranks that share the heads. Default: 1.
            """, transform: Parsing.ranks)
    var dcpSize: [Int] = []

    @Option(
        help: "Consecutive tokens whose keys one rank owns. 1, the default, keeps one rank's bits.",
        transform: Parsing.count(0...Parsing.maxRanks))
    var dcpInterleave: Int?

    @Option(
        help: "Keys a request has, at least, before it uses query-gather attention. Default: 1024.",
        transform: Parsing.count(0...Parsing.maxTokens))
    var dcpMinKeys: Int?

    @Option(
        help: """
            Ranks that share a dense layer's feed-forward and the shared experts: 1, or those that share the heads \
            (the default where the widths divide).
            """, transform: Parsing.ranks)
    var moeDenseTpSize: [Int] = []

    @Option(
        name: [.customLong("cp-strategy"), .customLong("nsa-prefill-cp-mode")],
        help: "How rows are assigned to context ranks: interleave (the default), zigzag or contiguous.")
    var cpStrategy: [PartitionStrategy] = []

    @Flag(
        name: [.customLong("enable-prefill-cp"), .customLong("enable-nsa-prefill-context-parallel")],
        help: "Without --attn-cp-size all ranks share the rows; with it, as without this flag.")
    var enablePrefillCp = false

    @Option(
        name: [.customLong("moe-a2a-backend")],
        help: """
            How rows reach their experts: none (all ranks see all rows, the default) or alltoall, also by the names that \
            SGLang has for libraries of such an exchange, as deepep, mooncake or flashinfer.
            """)
    var moeA2aBackend: [ExpertExchangeKind] = []

    @Option(
        help: """
            Threads that share the work inside each rank; the bits are the same. Best where ranks × threads are the \
            cores. Default: 1.
            """, transform: Parsing.count(0...Parsing.maxRanks))
    var threadsPerRank: Int?

    @Option(
        help: """
            auto: where the host has several memory nodes (sockets, or parts of them) and a core for each thread, each rank \
            stays on the cores of one, with its memory; off: threads run anywhere.
            """)
    var numa = CorePolicy.auto

    package init() {}

    /// The number of threads that share the work of each rank.
    package var threads: Int { threadsPerRank ?? 1 }

    /// Tells whether none of the options that divide work was given.
    var isDefault: Bool { agreed.allSatisfy { $0.value == "default" || $0.name == "--numa" } }

    /// The options that must have the same values in all processes, whichever of their names were used.
    var agreed: [ProcessCard.Property] {
        let sizes: [(String, [Int])] = [
            ("--tp-size", tpSize), ("--attn-cp-size", attnCpSize), ("--attn-dp-size", attnDpSize),
            ("--dp-size", dpSize),
            ("--ep-size", epSize), ("--pp-size", ppSize), ("--dcp-size", dcpSize),
            ("--moe-dense-tp-size", moeDenseTpSize), ("--dcp-interleave", dcpInterleave.map { [$0] } ?? []),
            ("--dcp-min-keys", dcpMinKeys.map { [$0] } ?? []),
            ("--threads-per-rank", threadsPerRank.map { [$0] } ?? []),
            ("--pp-layer-partition", (try? layerCounts(ProcessInfo.processInfo.environment))?.layers ?? []),
        ]
        let lists =
            sizes.map { ($0, $1.map { "\($0)" }) } + [
                ("--cp-strategy", cpStrategy.map(\.rawValue)), ("--moe-a2a-backend", moeA2aBackend.map(\.rawValue)),
                ("--enable-dp-attention", enableDpAttention ? ["yes"] : []),
                ("--enable-prefill-cp", enablePrefillCp ? ["yes"] : []),
                ("--numa", numa == .auto ? [] : [numa.rawValue]),
            ]
        return lists.map { ProcessCard.Property($0, $1.isEmpty ? "default" : $1.joined(separator: ",")) }
    }

    /// Returns the parallel request that the options make; `resolve` tells whether it can be run.
    ///
    /// - Parameter environment: The environment, which is searched for a variable of SGLang that is an option here.
    package func request(environment: [String: String] = ProcessInfo.processInfo.environment) -> ParallelRequest {
        var request = ParallelRequest()
        func agreed<Value: Hashable>(_ parameter: String, _ values: [Value]) -> Value? {
            if Set(values).count > 1 {
                let list = values.map { "\($0)" }.joined(separator: " and ")
                request.problems.append(.init(parameter: parameter, message: "given as \(list); give it once"))
            }
            return values.last
        }
        request.tpSize = agreed("tp_size", tpSize)
        request.attnCPSize = agreed("attn_cp_size", attnCpSize)
        request.attnDPSize = agreed("attn_dp_size", attnDpSize + (enableDpAttention ? dpSize : []))
        request.epSize = agreed("ep_size", epSize)
        request.ppSize = agreed("pp_size", ppSize)
        request.dcpSize = agreed("dcp_size", dcpSize)
        request.dcpInterleave = dcpInterleave
        request.dcpMinKeys = dcpMinKeys
        request.moeDenseTPSize = agreed("moe_dense_tp_size", moeDenseTpSize)
        request.strategy = agreed("cp_strategy", cpStrategy)
        request.exchange = agreed("moe_a2a_backend", moeA2aBackend)
        if !enableDpAttention, let replicas = agreed("dp_size", dpSize), replicas != 1 {
            request.problems.append(
                .init(
                    parameter: "dp_size",
                    message: "\(replicas) whole replicas are as many servers; for groups of ranks within this one add "
                        + "--enable-dp-attention",
                    given: replicas, legal: [1]))
        }
        request.contextFillsRanks = enablePrefillCp
        do throws(CommandError) {
            request.ppLayerPartition = try layerCounts(environment)?.layers
        } catch {
            let variable = Self.partition(in: environment)?.variable ?? "--pp-layer-partition"
            request.problems.append(.init(parameter: variable, message: error.description))
        }
        return request
    }

    /// Returns the layers of each stage: those of `--pp-layer-partition` or of a variable for the same.
    private func layerCounts(_ environment: [String: String]) throws(CommandError) -> LayerCounts? {
        guard let text = Self.partition(in: environment)?.text else { return ppLayerPartition }
        guard let counts = LayerCounts(argument: text) else {
            throw CommandError("'\(text.prefix(80))' is no list of layers, such as 31,30; correct it or unset it")
        }
        if let ppLayerPartition, ppLayerPartition.layers != counts.layers {
            throw CommandError("\(text) is not what --pp-layer-partition says; unset it")
        }
        return counts
    }

    /// Returns the variable of SGLang or vLLM that gives the layers of each stage, and its value; `nil` if there is none.
    static func partition(in environment: [String: String]) -> (variable: String, text: String)? {
        for variable in ["SGLANG_PP_LAYER_PARTITION", "VLLM_PP_LAYER_PARTITION"] {
            if let text = environment[variable], !text.isEmpty { return (variable, text) }
        }
        return nil
    }

    /// Layer counts are read from numbers separated by commas.
    struct LayerCounts: ExpressibleByArgument, Sendable {
        let layers: [Int]

        var defaultValueDescription: String { layers.map(String.init).joined(separator: ",") }

        init?(argument: String) {
            let parts = argument.split(separator: ",", omittingEmptySubsequences: false)
            layers = parts.compactMap { Int($0) }
            guard layers.count == parts.count, layers.allSatisfy({ $0 > 0 }) else { return nil }
        }
    }
}

extension PartitionStrategy: ExpressibleByArgument {
    package init?(argument: String) {
        switch argument {
        case "round-robin-split": self = .interleaved
        case "in-seq-split": self = .zigzag
        default: self.init(rawValue: argument)
        }
    }
}

extension CorePolicy: ExpressibleByArgument {}

extension ExpertExchangeKind: ExpressibleByArgument {
    package init?(argument: String) {
        switch argument {
        case _ where Self.exchangesElsewhere.contains(argument): self = .allToAll
        case "ascend_tp": self = .gathered
        default: self.init(rawValue: argument)
        }
    }

    /// SGLang's names of libraries that send rows to the ranks of their experts.
    private static let exchangesElsewhere = [
        "deepep", "deepep_v2", "mooncake", "nixl", "mori", "pplx", "flashinfer", "flashinfer_megamoe", "megamoe",
        "ascend_fuseep",
    ]

    /// All values that SGLang has for this choice.
    static let namesElsewhere = [gathered.rawValue, "ascend_tp"] + exchangesElsewhere
}
