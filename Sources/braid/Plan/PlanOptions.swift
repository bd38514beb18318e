import ArgumentParser
import Foundation
import JSON
import KVCache
import Modeling
import Planning

/// What to plan for: devices by name or by file.
struct PlanHardwareOptions: ParsableArguments {
    @Option(
        help: """
            Devices: a name of the table and a number, such as h20x8 (a name that is not there prints all), or a file \
            that describes those of one host. Default: this machine's cores, as --measure auto measured them, or by their \
            peaks.
            """)
    var hardware: String?

    /// The devices that were named; `nil` where none were.
    var named: Cluster? {
        get throws {
            guard let hardware else { return nil }
            guard FileManager.default.fileExists(atPath: hardware) else { return try Cluster(name: hardware) }
            let device = try Hardware(file: hardware, option: "--hardware")
            return Cluster(device, devices: device.devicesPerHost)
        }
    }
}

extension Hardware {
    /// Reads a file.
    ///
    /// - Parameter option: the option that named it, for errors.
    /// - Throws: `CommandError` saying what is wrong with it.
    init(file path: String, option: String) throws {
        // The description of a machine has a few kilobytes.
        let file = try DataFile(path: path, option: option, limit: 4 << 20)
        do {
            try self.init(JSONValue(parsing: file.bytes, limits: .strict))
        } catch {
            throw CommandError("\(option): '\(path)': \(error)")
        }
    }
}

/// What clients send, and what they expect.
struct PlanTrafficOptions: ParsableArguments {
    @Option(
        help: "Tokens of a prompt. Default: 4096, or as many as the model has positions for.",
        transform: Parsing.count(1...Parsing.maxTokens / 2))
    var inputTokens: Int?

    @Option(
        help: "Tokens of an answer. Default: 512, or as many as the model has positions for.",
        transform: Parsing.count(1...Parsing.maxTokens / 2))
    var outputTokens: Int?

    @Option(help: "Requests computed at the same time.", transform: Parsing.count(1...Parsing.maxRequests))
    var concurrency = 1

    @Option(help: "The part of a prompt whose keys the prefix cache has, 0 to 1.", transform: Parsing.number(0...1))
    var prefixHitRate = 0.0

    @Option(
        help: """
            Element type of the KV cache: auto, float32, bfloat16, fp8_e4m3. auto is bfloat16 on accelerators, and on \
            processors as braid serve takes it.
            """)
    var kvCacheDtype = CacheChoice.auto

    @OptionGroup var indexCache: IndexCacheOptions

    @Option(
        help: """
            How products and attention compute on processors: auto, float32 or bfloat16, as --dtype of braid serve.
            """)
    var dtype = ProfileChoice.auto

    @Option(
        help: "Prompt tokens of one request computed in one step; default: 16384, or 1024 on processors.",
        transform: Parsing.count(1...Parsing.maxTokens))
    var chunkedPrefillSize: Int?

    @Option(help: "Tokens to draft in a decode step.", transform: Parsing.count(0...15))
    var speculativeNumSteps = 0

    @Option(
        help: "The probability that a draft is accepted if those before it are, 0 to 1.",
        transform: Parsing.number(0...1))
    var acceptanceRate = 0.8

    @Option(help: "Layouts whose first token takes longer rank below others: 2s, 500ms.", transform: Parsing.duration)
    var sloTtft: Double?

    @Option(help: "Layouts whose further tokens take longer each: 50ms.", transform: Parsing.duration)
    var sloTpot: Double?

    package func validate() throws {
        guard [.auto, .float32, .bfloat16].contains(dtype) else {
            throw CommandError("--dtype: \(dtype.rawValue) cannot be planned yet; legal: auto, float32, bfloat16")
        }
    }

    /// The options that have other values than by default.
    var changed: [String] {
        get throws {
            let usual = try Self.parse([])
            func differs(_ path: KeyPath<Self, some Equatable>) -> Bool { self[keyPath: path] != usual[keyPath: path] }
            return [
                ("--input-tokens", differs(\.inputTokens)), ("--output-tokens", differs(\.outputTokens)),
                ("--concurrency", differs(\.concurrency)), ("--prefix-hit-rate", differs(\.prefixHitRate)),
                ("--kv-cache-dtype", differs(\.kvCacheDtype)),
                ("--enable-deepseek-v4-fp4-indexer", differs(\.indexCache.hasFP4Index)), ("--dtype", differs(\.dtype)),
                ("--chunked-prefill-size", differs(\.chunkedPrefillSize)),
                ("--speculative-num-steps", differs(\.speculativeNumSteps)),
                ("--acceptance-rate", differs(\.acceptanceRate)), ("--slo-ttft", differs(\.sloTtft)),
                ("--slo-tpot", differs(\.sloTpot)),
            ].filter(\.1).map(\.0)
        }
    }

    /// Devices whose kernels all compute as `--dtype` says.
    func computing(_ cluster: Cluster) -> Cluster {
        guard cluster.hardware.kind == .processor, dtype != .auto else { return cluster }
        var cluster = cluster
        cluster.hardware.kernels = cluster.hardware.kernels.all(in: dtype == .float32 ? .f32 : .bf16)
        return cluster
    }

    /// Returns how the model's keys are kept; on processors where `hardware` is `nil`.
    ///
    /// - Throws: `CommandError` if they cannot be kept so.
    func cache(for hardware: Hardware?, _ model: ModelDescription) throws -> CacheType {
        try indexCache.check(model)
        let isAutomatic = hardware?.kind == .accelerator && kvCacheDtype == .auto
        return indexCache.type(isAutomatic ? .bfloat16 : kvCacheDtype.keys(in: dtype.profile(of: model.formats)))
    }

    /// Returns the traffic for a model of so many positions, in which prompts and answers fit that were not given.
    func traffic(for hardware: Hardware, positions: Int) -> PlannedTraffic {
        let output = outputTokens ?? max(1, min(512, inputTokens.map { positions - $0 } ?? positions / 2))
        return PlannedTraffic(
            input: inputTokens ?? max(1, min(4096, positions - output)), output: output, concurrency: concurrency,
            prefixHitRate: prefixHitRate,
            chunk: chunkedPrefillSize ?? (hardware.kind == .accelerator ? 16_384 : 1024),
            drafts: speculativeNumSteps, acceptanceRate: acceptanceRate)
    }

    var objectives: Planner.Objectives { Planner.Objectives(firstToken: sloTtft, perToken: sloTpot) }
}

/// `cp=1..32`.
struct RankRange: ExpressibleByArgument {
    let ranks: ClosedRange<Int>

    init?(argument: String) {
        let parts = argument.split(separator: "=", omittingEmptySubsequences: false)
        let ends = parts.last.map { String($0).components(separatedBy: "..").compactMap { Int($0) } } ?? []
        guard parts.count == 2, parts[0] == "cp", ends.count == 2, 1 <= ends[0], ends[0] <= ends[1], ends[1] <= 128
        else { return nil }
        ranks = ends[0]...ends[1]
    }
}

extension Parsing {
    /// Reads a duration that need not be whole: `2s`, `500ms`, or seconds.
    package static let duration: @Sendable (String) throws -> Double = { text in
        let (digits, unit): (Substring, Double) =
            text.hasSuffix("ms")
            ? (text.dropLast(2), 1e-3) : text.hasSuffix("s") ? (text.dropLast(), 1) : (text[...], 1)
        guard let number = Parsing.decimal(digits), number > 0, number * unit <= Double(maxSeconds) else {
            throw ValidationError("it is not a duration such as 2s or 500ms, at most a week")
        }
        return number * unit
    }
}
