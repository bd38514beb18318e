import ArgumentParser
package import Checkpoints
import Foundation
package import Inference
import KVCache
import Modeling
package import Models
import Parallelism
package import Tensors

/// These options belong to every command that runs a model.
package struct EngineOptions: ParsableArguments, Sendable {
    @Option(
        name: [.customLong("model-path"), .customLong("model")],
        help: "The model's directory, or its name on Hugging Face if it is in the download cache.")
    var modelPath: String?

    @OptionGroup(title: "Checkpoint") var checkpoint: CheckpointOptions

    @Option(
        help: """
            auto or safetensors: the checkpoint's weights; dummy: random ones from config.json alone, for benchmarks.
            """)
    var loadFormat: ModelDirectory.LoadFormat = .auto

    @Flag(
        help: """
            Read all weights before anything is served. Default: the first request waits for those it needs to be read.
            """)
    var preload = false

    @Option(
        help: """
            How products and attention compute: float32; bfloat16, which rounds their operands to BF16 and adds in \
            float32; int8 and int8-float32, which are as bfloat16 and float32 but round to INT8 what INT8 weights are \
            multiplied by. auto is float32 for a checkpoint in F32 or F16 and bfloat16 for one in BF16, FP8 or FP4, or the \
            one of int8 if some weights are INT8.
            """)
    package var dtype = ProfileChoice.auto

    @Option(
        help: """
            How the KV cache keeps keys: auto, float32, bfloat16, fp8_e4m3. auto adds no rounding: it is bfloat16 where \
            --dtype rounds keys to BF16 when it reads them, and float32 otherwise. bfloat16 takes half of the memory of \
            float32, fp8_e4m3 little more than a quarter.
            """)
    var kvCacheDtype = CacheChoice.auto

    @OptionGroup var indexCache: IndexCacheOptions

    @Option(
        help: """
            Tokens of a KV page, a power of two. By default 64, or as many as the model's longest cache entry covers \
            (V4: 128).
            """, transform: Parsing.count(1...65_536))
    var pageSize: Int?

    @Option(help: "Tokens of the KV cache, all requests together.", transform: Parsing.count(1...Parsing.maxTokens))
    var maxTotalTokens: Int?

    @Option(
        help: "Bytes of each rank for the KV cache, instead of --max-total-tokens.",
        transform: Parsing.count(1...1 << 60))
    var kvCacheMemoryBytes: Int?

    @Option(
        name: [.customLong("mem-fraction-static"), .customLong("gpu-memory-utilization")],
        help: """
            The part of the memory that this machine, or a limit of its cgroup, has left that the weights and the KV \
            caches of the processes on it may fill, instead of --max-total-tokens; a cache is never larger than all \
            running requests can use.
            """, transform: Parsing.number(0.01...1))
    var memFractionStatic: Double?

    @Option(
        name: [.customLong("context-length"), .customLong("max-model-len")],
        help: "Prompt and new tokens of one request, at most; auto or -1, the default: what the model was made for.",
        transform: { try ContextChoice($0) })
    var contextLengthChoice = ContextChoice.auto

    /// The value of `--context-length`; `nil` for what the model was made for.
    var contextLength: Int? { contextLengthChoice.tokens }

    @Option(
        name: [.customLong("max-running-requests"), .customLong("max-num-seqs")],
        help: "Requests computed together, at most. Default: 64.", transform: Parsing.count(1...Parsing.maxRequests))
    var maxRunningRequests = 64

    @Option(
        help: "Requests that may wait; more are refused with 429. Default: 1024.",
        transform: Parsing.count(1...16_777_216))
    var maxQueuedRequests = 1024

    @Option(
        parsing: .unconditional,
        help: "Prompt tokens of one request computed in one step, at most 32768, which -1 stands for. Default: 1024.",
        transform: Parsing.count(-1...Parsing.maxTokens))
    var chunkedPrefillSize = 1024

    @Option(
        name: [.customLong("max-prefill-tokens"), .customLong("max-num-batched-tokens")],
        help: """
            Prompt tokens of all requests computed in one step, at most 32768. Default: those of --chunked-prefill-size, \
            at least 1024.
            """, transform: Parsing.count(1...Parsing.maxTokens))
    var maxPrefillTokens: Int?

    @Flag(
        help: """
            Later chunks of a long prompt are smaller, so that each takes about as long as the first and the stages of \
            a pipeline wait less for each other.
            """)
    var enableDynamicChunking = false

    @Option(
        help: "A rank that makes no progress for so long has failed: seconds, or 90s, 5m, 1h. Default: 300.",
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

    @Option(help: "Instruction-set level: reference, neon, avx2, avx512, amx; default: the best this processor has.")
    var kernels: Kernels.Level?

    @Option(
        help: """
            A file of sizes of blocks from braid tune, or off. Default: this processor's file in the user's cache, if \
            there is one. No result depends on it.
            """)
    var tuning: String?

    package init() {}

    /// Joins the processes that run this command together.
    ///
    /// - Throws: `CommandError` also if the ranks cannot be divided among the nodes, since the line that is printed for
    ///   several nodes must work.
    func join() throws -> Job {
        let location = try location()
        if let nodes = processes.nnodes, nodes > processes.nodeRank ?? 0,
            let layout = try? parallel.request().resolve(for: ModelDirectory(location).description.parallelShape),
            let problem = processes.problem(ranks: layout.world, processes: nodes, option: "--nnodes")
        {
            throw CommandError(problem + "; the ranks are --tp-size times --pp-size")
        }
        return try Job.join(
            processes, Job.Checkpoint(path: location.directory, loadFormat: loadFormat, patience: patience),
            agreed: agreed)
    }

    /// The options that must have the same values in all processes, because ranks depend on them. They include neither
    /// secrets, such as the API key, nor file names, which may differ between hosts, nor options that only the first
    /// process uses.
    package var agreed: [ProcessCard.Property] {
        func property(_ name: String, _ value: Any?) -> ProcessCard.Property {
            ProcessCard.Property(name, value.map { "\($0)" } ?? "default")
        }
        return [
            property("--load-format", loadFormat), property("--dtype", choice),
            property("--kv-cache-dtype", kvCacheDtype),
            property("--enable-deepseek-v4-fp4-indexer", indexCache.hasFP4Index),
            // The size that is used by default, unless the model's entries need a larger one; processes have the same
            // model.
            property("--page-size", pageSize ?? EngineConfiguration().pageSize),
            property("--max-total-tokens", maxTotalTokens),
            property("--kv-cache-memory-bytes", kvCacheMemoryBytes),
            property("--mem-fraction-static", memFractionStatic), property("--context-length", contextLength),
            property("--max-running-requests", maxRunningRequests),
            property("--chunked-prefill-size", chunkedPrefillSize),
            property("--max-prefill-tokens", maxPrefillTokens),
            property("--speculative-num-steps", speculation.drafts), property("--watchdog-timeout", watchdogTimeout),
            property("--kernels", kernels),
        ] + parallel.agreed
    }

    /// A process is lost after this many seconds of silence: at most half a minute, however long a step may take.
    private var patience: Double { Double(min(max(watchdogTimeout, 1), 30)) }

    /// Returns the configuration of an engine, after checking it against the model and this machine.
    ///
    /// - Throws: `CommandError` with all problems, a line each. Nothing was printed then.
    func engineConfiguration(
        for model: any Model, _ profile: NumericsProfile, _ job: Job
    ) throws -> EngineConfiguration {
        var notes: [String] = []
        var configuration = ownConfiguration(for: model, profile, job, &notes)
        var problems: [String] = []
        do throws(ParallelRequest.Refusal) {
            configuration.parallel = try parallel.request().resolve(for: model.parallelShape)
        } catch {
            problems = error.problems.map(\.description)
        }
        if let problem = processes.problem(ranks: configuration.parallel.world, processes: job.count) {
            problems.append(problem)
        }
        if let memFractionStatic, maxTotalTokens == nil, kvCacheMemoryBytes == nil {
            do throws(CommandError) {
                configuration.cacheBytesPerProcess = try cacheBytes(memFractionStatic, of: configuration)
            } catch {
                problems.append(error.description)
            }
        }
        problems += configuration.validate(for: model)
        guard problems.isEmpty else { throw CommandError(problems.joined(separator: "\n")) }
        let chosen = try ChosenTuning(tuning, model.description, configuration.kernels ?? Kernels.best.level)
        configuration.tuning = chosen.tuning
        if chosen.tuning != Tuning() { notes.append("sizes of blocks: \(chosen.summary)") }
        if let warning = chosen.warning { notes.append(warning) }
        if configuration.coreShares.matters { notes.append("cores: \(configuration.coreShares.text)") }
        for line in notes { note(line) }
        return configuration
    }

    /// Returns the configuration that the options give, without ranks and tuning.
    private func ownConfiguration(
        for model: any Model, _ profile: NumericsProfile, _ job: Job, _ notes: inout [String]
    ) -> EngineConfiguration {
        var configuration = EngineConfiguration()
        configuration.profile = profile
        configuration.cacheType = cacheType(in: profile)
        configuration.pageSize = pageSize ?? max(configuration.pageSize, model.positionAlignment)
        configuration.maxTotalTokens = maxTotalTokens
        configuration.cacheBytesPerRank = kvCacheMemoryBytes
        configuration.contextLength = contextLength
        configuration.maxRunningRequests = maxRunningRequests
        configuration.maxQueuedRequests = maxQueuedRequests
        configuration.chunkedPrefillSize = clamped(chunkedPrefillSize, "--chunked-prefill-size", model, &notes)
        configuration.maxPrefillTokens = maxPrefillTokens.map { clamped($0, "--max-prefill-tokens", model, &notes) }
        configuration.dynamicChunks = enableDynamicChunking
        configuration.watchdogTimeout = watchdogTimeout
        configuration.prefixCache = !disableRadixCache
        configuration.drafts = speculation.drafts
        configuration.checksInvariants = checkInvariants
        configuration.kernels = kernels ?? job.commonLevel
        configuration.processes = job.count
        configuration.processesOnHost = job.countOnHost
        configuration.threadsPerRank = parallel.threads
        configuration.numa = parallel.numa
        return configuration
    }

    /// Returns how keys are kept.
    func cacheType(in profile: NumericsProfile) -> CacheType { indexCache.type(kvCacheDtype.keys(in: profile)) }

    /// Returns a number of tokens of a step that is no larger than a step can be, and says so if it was.
    private func clamped(_ tokens: Int, _ option: String, _ model: any Model, _ notes: inout [String]) -> Int {
        let most = min(EngineConfiguration.maxRows, contextLength ?? model.contextLength)
        // A smaller number than the largest step is legal even if no prompt is as long.
        guard tokens > EngineConfiguration.maxRows else { return tokens }
        notes.append("\(option): \(tokens) is more than a step can have; \(most) is used")
        return most
    }

    /// Returns the bytes of the KV cache of this process if the weights, which the processes of a host share, and the caches
    /// of all its processes fill a part of the memory that they can use.
    private func cacheBytes(_ fraction: Double, of configuration: EngineConfiguration) throws(CommandError) -> Int {
        let memory = configuration.hostMemory.available
        let weights = loadFormat == .dummy ? 0 : weightBytes
        let bytes = (Double(memory) * fraction - Double(weights)) / Double(configuration.processesOnHost)
        guard bytes >= 1 else {
            throw CommandError(
                "--mem-fraction-static: \(fraction) of the \(memory) bytes that this machine has left has no room for a KV "
                    + "cache beside the \(weights) bytes of the weights; leave it out, and give --max-total-tokens")
        }
        return Int(bytes)
    }

    /// The size of the checkpoint's files of weights.
    private var weightBytes: Int {
        (try? WeightFiles(in: location().directory).bytes) ?? 0
    }

    /// Opens the trace, if one was requested.
    func traceWriter(for configuration: EngineConfiguration) throws -> TraceWriter? {
        try trace.map { try TraceWriter(path: $0, configuration.parallel, log: note) }
    }

    /// Opens the model, with a progress bar if standard error is a terminal.
    func load() throws -> (directory: ModelDirectory, model: any Model, profile: NumericsProfile) {
        let directory = try directory()
        let weights = try directory.openWeights(loadFormat)
        let progress = ProgressBar("loading \(try location().directory)")
        defer { progress.finish() }
        if preload { try parallel.numa.spreadingFiles { try weights?.preload { progress.update($0) } } }
        let model = try directory.model(weights, drafts: speculation.isOn) { if !preload { progress.update($0) } }
        return (directory, model, try profile(of: directory, weights))
    }

    /// The value of `--dtype`, or that which `--quantization` chooses.
    private var choice: ProfileChoice {
        guard checkpoint.wantsIntegers else { return dtype }
        return dtype == .float32 ? .int8Float32 : dtype == .bfloat16 ? .int8 : dtype
    }

    /// Returns the numerics profile for a checkpoint; `weights` is `nil` for dummy weights.
    ///
    /// - Throws: `CommandError` if an option contradicts the checkpoint.
    package func profile(of directory: ModelDirectory, _ weights: WeightIndex?) throws -> NumericsProfile {
        let profile = choice.profile(of: directory, weights)
        try profile.check(directory, weights)
        return profile
    }

    /// Finds the model.
    func location() throws -> ModelLocation {
        guard let modelPath else {
            let list = LaunchLine.current?.lastList.map {
                ": \($0) takes all words up to the next option, perhaps also the model; write the model first, or as --model-path MODEL"
            }
            throw CommandError(
                "--model-path is missing" + (list ?? "; give the directory of a model, or its name on Hugging Face"))
        }
        return try ModelLocation(modelPath, revision: checkpoint.revision, cache: checkpoint.downloadDir)
    }

    /// Finds the model, and reads and checks its configuration files and the options that must agree with them.
    func directory() throws -> ModelDirectory {
        let directory = try ModelDirectory(try location())
        try checkpoint.check(directory)
        try indexCache.check(directory.description)
        return directory
    }
}

extension ModelDirectory.LoadFormat: ExpressibleByArgument {
    package init?(argument: String) {
        self.init(rawValue: argument == "safetensors" ? "auto" : argument)
    }
}
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
