import Foundation
import Inference
package import KVCache
import Modeling
package import Parallelism
package import Planning

/// How a layout is started: Braid's options, and those of SGLang with what it refuses.
package struct LaunchFlags {
    package enum Role: String, Sendable {
        case prefill, decode
    }

    private let parallel: ParallelConfiguration
    private let traffic: PlannedTraffic
    private let model: PlannedModel
    private let hardware: Hardware
    private let cache: CacheType
    private let role: Role?

    /// - Parameter role: the side of a disaggregated service; `nil` for a server that does both.
    package init(
        _ parallel: ParallelConfiguration, _ traffic: PlannedTraffic, _ model: PlannedModel, _ hardware: Hardware,
        cache: CacheType, role: Role? = nil
    ) {
        self.parallel = parallel
        self.traffic = traffic
        self.model = model
        self.hardware = hardware
        self.cache = cache
        self.role = role
    }

    /// The options of `braid serve` that give exactly this layout, as this traffic was planned.
    package var braid: [String] {
        var flags = ["--model-path", model.path] + layout
        if hardware.kind == .processor && hardware.cores > 1 { flags += ["--threads-per-rank", "\(hardware.cores)"] }
        if let profile { flags += ["--dtype", profile.rawValue] }
        flags += ["--kv-cache-dtype", cache.keys.rawValue] + index
        flags += ["--chunked-prefill-size", "\(min(traffic.chunk, EngineConfiguration.maxRows))"]
        if traffic.concurrency > EngineConfiguration().maxRunningRequests {
            flags += ["--max-running-requests", "\(traffic.concurrency)"]
        }
        if traffic.drafts > 0 {
            flags += ["--speculative-algorithm", "NEXTN", "--speculative-num-steps", "\(traffic.drafts)"]
        }
        return flags
    }

    /// How the device's kernels compute, where that is not as `--dtype auto` takes it for such weights.
    private var profile: ProfileChoice? {
        guard hardware.kind == .processor else { return nil }
        if model.weights == .f32 { return hardware.kernels[.f32] == nil ? .bfloat16 : nil }
        return hardware.kernels[.bf16] == nil ? .float32 : nil
    }

    /// The command line that starts Braid with those, a process on each host.
    package var braidLine: String {
        ProcessOptions.line(["braid", "serve"] + braid, hosts: processes, isRoot: geteuid() == 0)
    }

    /// As many processes as hosts are needed, or more where that does not divide the ranks.
    private var processes: Int {
        let hosts = (parallel.world + hardware.devicesPerHost - 1) / hardware.devicesPerHost
        return (hosts...parallel.world).first { parallel.world % $0 == 0 }!
    }

    /// The command line of SGLang that comes nearest.
    package var sglangLine: String {
        ProcessOptions.line(["sglang", "serve"] + sglang, hosts: 1, isRoot: false)
    }

    /// Those of Braid's options that choose the ranks.
    package var layout: [String] {
        var flags = sizes
        if parallel.stageRanks > 1 { flags += ["--ep-size", "\(parallel.expert)"] }
        if parallel.tensor > 1 { flags += ["--moe-dense-tp-size", "\(parallel.denseTensor)"] }
        if parallel.context > 1 { flags += ["--cp-strategy", parallel.strategy.rawValue] }
        if parallel.exchange == .allToAll { flags += ["--moe-a2a-backend", parallel.exchange.rawValue] }
        return flags
    }

    /// The options of `sglang serve` (0.5.23) that come nearest.
    package var sglang: [String] {
        var flags = ["--model-path", model.path] + sizes
        if parallel.context > 1 { flags += ["--enable-prefill-cp", "--cp-strategy", parallel.strategy.rawValue] }
        if parallel.data > 1 { flags += ["--enable-dp-attention"] }
        if parallel.stageRanks > 1 { flags += ["--ep-size", "\(parallel.expert)"] }
        if parallel.context > 1 || parallel.denseTensor == 1 && parallel.tensor > 1 {
            flags += ["--moe-dense-tp-size", "1"]
        }
        if parallel.exchange == .allToAll { flags += ["--moe-a2a-backend", "deepep"] }
        flags += ["--kv-cache-dtype", cache.keys == .fp8 ? "fp8_e4m3" : "bf16"] + index
        flags += ["--chunked-prefill-size", "\(traffic.chunk)"]
        if traffic.drafts > 0 {
            flags += [
                "--speculative-algorithm", "NEXTN", "--speculative-num-steps", "\(traffic.drafts)",
                "--speculative-eagle-topk", "1", "--speculative-num-draft-tokens", "\(traffic.drafts + 1)",
            ]
        }
        if let role { flags += ["--disaggregation-mode", role.rawValue] }
        return flags
    }

    /// The type of index keys, which both spell alike.
    private var index: [String] { cache.hasFP4Index ? ["--enable-deepseek-v4-fp4-indexer"] : [] }

    /// The sizes that both spell alike.
    private var sizes: [String] {
        let sizes = [
            ("--tp-size", parallel.stageRanks), ("--attn-cp-size", parallel.context),
            ("--attn-dp-size", parallel.data), ("--pp-size", parallel.pipeline),
            ("--dcp-size", parallel.kvSharding.ranks),
        ]
        return sizes.filter { $0.1 > 1 }.flatMap { [$0.0, "\($0.1)"] }
    }

    /// Why SGLang 0.5.23 does not start with those; empty where it does.
    package var refusals: [String] {
        let isSparse = model.description.selection != nil
        var reasons: [String] = []
        func refuse(_ condition: Bool, _ reason: String) { if condition { reasons.append(reason) } }
        let isDCP = parallel.kvSharding.ranks > 1
        refuse(parallel.context > 1 && isDCP, "prefill CP and DCP in one server")
        refuse(parallel.context > 1 && parallel.stageRanks > 8, "prefill CP on more than 8 ranks of a stage")
        refuse(
            isSparse && isDCP && hardware.kind == .accelerator && hardware.family != "b200",
            "DCP of sparse attention on devices before Blackwell")
        refuse(isSparse && isDCP && role != nil, "DCP of sparse attention with disaggregation")
        refuse(parallel.context > 1 && role == .decode, "CP on the decoding side")
        refuse(!isSparse && parallel.context > 1 && parallel.tensor > 1, "CP beside TP without sparse attention")
        refuse(
            parallel.exchange == .allToAll && parallel.expertTensor > 1, "all-to-all with experts divided by width")
        refuse(
            !isSparse && parallel.context > 1 && parallel.exchange == .gathered,
            "CP without all-to-all experts, without sparse attention")
        refuse(hardware.kind == .processor && isSparse, "sparse attention on processors")
        return reasons
    }
}
