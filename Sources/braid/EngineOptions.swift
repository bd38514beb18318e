import ArgumentParser
package import Inference
package import KVCache
import Modeling
import Models
import Parallelism
import Tensors

/// These options belong to every command that runs a model.
package struct EngineOptions: ParsableArguments, Sendable {
    @Option(name: [.customLong("model-path"), .customLong("model")], help: "The model's directory.")
    var modelPath: String

    @Option(help: "auto: the checkpoint's weights; dummy: random ones from config.json alone, for benchmarks.")
    var loadFormat: ModelDirectory.LoadFormat = .auto

    @Flag(
        help: """
            Read all weights before anything is served. Default: the first request waits for those it needs to be read.
            """)
    var preload = false

    @Option(
        help: """
            How the KV cache keeps keys: auto, float32, bfloat16, fp8_e4m3. auto is float32, which adds no rounding; \
            bfloat16 takes half of the memory, fp8_e4m3 little more than a quarter.
            """)
    var kvCacheDtype: CacheType = .float32

    @Option(help: "Tokens of a KV page, a power of two.", transform: Parsing.count(1...65_536))
    var pageSize = 64

    @Option(help: "Tokens of the KV cache, all requests together.", transform: Parsing.count(1...Parsing.maxTokens))
    var maxTotalTokens: Int?

    @Option(
        help: "Bytes of each rank for the KV cache, instead of --max-total-tokens.",
        transform: Parsing.count(1...1 << 60))
    var kvCacheMemoryBytes: Int?

    @Option(
        name: [.customLong("context-length"), .customLong("max-model-len")],
        help: "Prompt and new tokens of one request, at most; default: what the model was made for.",
        transform: Parsing.count(1...Parsing.maxTokens))
    var contextLength: Int?

    @Option(
        name: [.customLong("max-running-requests"), .customLong("max-num-seqs")],
        help: "Requests computed together, at most.", transform: Parsing.count(1...65_536))
    var maxRunningRequests = 64

    @Option(help: "Requests that may wait; more are refused with 429.", transform: Parsing.count(1...16_777_216))
    var maxQueuedRequests = 1024

    @Option(
        parsing: .unconditional, help: "Prompt tokens of one request computed in one step; -1 for 32768, the most.",
        transform: Parsing.count(-1...Parsing.maxTokens))
    var chunkedPrefillSize = 1024

    @Flag(
        help: """
            Later chunks of a long prompt are smaller, so that each takes about as long as the first and the stages of \
            a pipeline wait less for each other.
            """)
    var enableDynamicChunking = false

    @Option(
        help: "A rank that makes no progress for so long has failed: seconds, or 90s, 5m, 1h.",
        transform: Parsing.seconds(1...1_000_000))
    var watchdogTimeout = 300

    @Option(help: "Write what every rank does to this file, for ui.perfetto.dev.")
    var trace: String?

    @Flag(help: "Do not keep the pages of finished requests for later ones whose prompts begin alike.")
    var disableRadixCache = false

    @Flag(
        help: """
            Check after every step that each page is free, cached or in use and each request where it should be; \
            end with an error that says what is wrong. For debugging: costs time that grows with the number of pages.
            """)
    var checkInvariants = false

    @OptionGroup(title: "Speculative decoding") var speculation: SpeculationOptions

    @OptionGroup(title: "Ranks") var parallel: ParallelOptions

    @OptionGroup(title: "Processes") var processes: ProcessOptions

    @Option(help: "Instruction-set level: reference, neon, avx2, avx512; default: the best this processor has.")
    var kernels: Kernels.Level?

    @Option(
        help: """
            A file of sizes of blocks from braid tune, or off. Default: this processor's file in the user's cache, if \
            there is one. No result depends on it.
            """)
    var tuning: String?

    package init() {}

    /// Joins the processes that run this command together.
    func join() throws -> Job {
        try Job.join(
            processes, Job.Checkpoint(path: modelPath, loadFormat: loadFormat, patience: patience), agreed: agreed)
    }

    /// The options that must have the same values in all processes, because ranks depend on them. They include neither
    /// secrets, such as the API key, nor file names, which may differ between hosts, nor options that only the first
    /// process uses.
    package var agreed: [ProcessCard.Property] {
        func property(_ name: String, _ value: Any?) -> ProcessCard.Property {
            ProcessCard.Property(name, value.map { "\($0)" } ?? "default")
        }
        return [
            property("--load-format", loadFormat), property("--kv-cache-dtype", kvCacheDtype),
            property("--page-size", pageSize), property("--max-total-tokens", maxTotalTokens),
            property("--kv-cache-memory-bytes", kvCacheMemoryBytes), property("--context-length", contextLength),
            property("--max-running-requests", maxRunningRequests),
            property("--chunked-prefill-size", chunkedPrefillSize),
            property("--speculative-num-steps", speculation.drafts), property("--watchdog-timeout", watchdogTimeout),
            property("--kernels", kernels),
        ] + parallel.agreed
    }

    /// A process is lost after this many seconds of silence: at most half a minute, however long a step may take.
    private var patience: Double { Double(min(max(watchdogTimeout, 1), 30)) }

    func engineConfiguration(for model: any Model, _ job: Job) throws -> EngineConfiguration {
        var configuration = EngineConfiguration()
        configuration.cacheType = kvCacheDtype
        configuration.pageSize = pageSize
        configuration.maxTotalTokens = maxTotalTokens
        configuration.cacheBytesPerRank = kvCacheMemoryBytes
        configuration.contextLength = contextLength
        configuration.maxRunningRequests = maxRunningRequests
        configuration.maxQueuedRequests = maxQueuedRequests
        configuration.chunkedPrefillSize = chunkedPrefillSize
        configuration.dynamicChunks = enableDynamicChunking
        configuration.watchdogTimeout = watchdogTimeout
        configuration.prefixCache = !disableRadixCache
        configuration.drafts = speculation.drafts
        configuration.checksInvariants = checkInvariants
        configuration.kernels = kernels ?? job.commonLevel
        configuration.processes = job.count
        configuration.threadsPerRank = parallel.threads
        var problems: [String] = []
        do throws(ParallelRequest.Refusal) {
            configuration.parallel = try parallel.request().resolve(for: model.parallelShape)
        } catch {
            problems = error.problems.map(\.description)
        }
        if let problem = processes.problem(ranks: configuration.parallel.world, processes: job.count) {
            problems.append(problem)
        }
        problems += configuration.validate(for: model)
        guard problems.isEmpty else { throw CommandError(problems.joined(separator: "\n")) }
        if let warning = configuration.warning { note(warning) }
        let chosen = try ChosenTuning(tuning, model.description, configuration.kernels ?? Kernels.best.level)
        configuration.tuning = chosen.tuning
        if chosen.tuning != Tuning() { note("sizes of blocks: \(chosen.summary)") }
        if let warning = chosen.warning { note(warning) }
        return configuration
    }

    /// Opens the trace, if one was requested.
    func traceWriter(for configuration: EngineConfiguration) throws -> TraceWriter? {
        try trace.map { try TraceWriter(path: $0, configuration.parallel, log: note) }
    }

    /// Opens the model, with a progress bar if standard error is a terminal.
    func load() throws -> (directory: ModelDirectory, model: any Model) {
        let directory = try ModelDirectory(modelPath)
        let progress = ProgressBar("loading \(modelPath)")
        defer { progress.finish() }
        let model = try directory.load(loadFormat, drafts: speculation.isOn, preloads: preload) { progress.update($0) }
        return (directory, model)
    }
}

extension CacheType: ExpressibleByArgument {
    /// Reads a cache type by any of the names that other engines use.
    package init?(argument: String) {
        switch argument {
        case "auto", "float32", "fp32", "f32": self = .float32
        case "bfloat16", "bf16": self = .bfloat16
        case "fp8_e4m3", "fp8": self = .fp8
        default: return nil
        }
    }

    package static var allValueStrings: [String] { ["auto"] + allCases.map(\.rawValue) }
}

extension ModelDirectory.LoadFormat: ExpressibleByArgument {}
extension Kernels.Level: ExpressibleByArgument {}

extension Kernels {
    /// Returns the kernels of the level that `--kernels` names, or the best.
    ///
    /// - Throws: `CommandError` if this processor does not have that level.
    static func asked(_ level: Level?) throws -> Kernels {
        guard let level else { return .best }
        guard let kernels = Kernels(level) else {
            throw CommandError("--kernels: this processor has no \(level.rawValue)")
        }
        return kernels
    }
}

/// A command error is an error of the command itself, which is printed as it is.
struct CommandError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
