import Checkpoints
import Disaggregation
import Foundation
import Grammar
import Inference
import KVCache
import Modeling
import Models
import PrefixStorage
import Serving
import Tensors
import Tokenization

/// A model with everything that its service needs, checked, before ranks are started.
struct LoadedService: Sendable {
    let model: any Model
    var configuration: EngineConfiguration
    let chatFormat: Result<ChatFormat, ChatError>
    let trace: TraceWriter?
    /// The sampling parameters of requests that give none: those that the checkpoint recommends.
    var defaults = SamplingDefaults()
    private let tokenizer: Tokenizer
    private let grammars: GrammarCache
    private let endTokens: Set<Int32>
    /// The files to read before ranks start, if they are asked for.
    private let preloaded: WeightIndex?
    private let name: String
    /// The checkpoint's directory, and whether its weights are used, to identify the model for another server.
    private let directory: String
    private let hasWeights: Bool

    /// Maps the weights and checks all options, without printing anything before the last check.
    init(
        _ options: EngineOptions, _ tokenizerOptions: TokenizerOptions, _ parsers: ParserOptions,
        _ directory: ModelDirectory, _ job: Job
    ) throws {
        let vocabulary: GrammarVocabulary
        (tokenizer, vocabulary) = try tokenizerOptions.vocabulary(
            directory, size: directory.description.vocabularySize)
        chatFormat = try parsers.chatFormat(tokenizer)
        let weights = try directory.openWeights(options.loadFormat)
        model = try directory.model(weights, drafts: options.speculation.isOn)
        preloaded = options.preload ? weights : nil
        configuration = try options.engineConfiguration(
            for: model, options.profile(of: directory, weights), job)
        trace = try options.traceWriter(for: configuration)
        grammars = GrammarCache(vocabulary)
        endTokens = Set(directory.generation.endTokens)
        name = directory.name
        self.directory = directory.path
        hasWeights = options.loadFormat == .auto
        defaults.follow(directory.generation)
    }

    /// What an operator should know when the ranks start: the layout, the cache and the numerics, a line each.
    var startLines: [String] {
        let parallel = configuration.parallel
        let scheduler = configuration.scheduler(for: model)
        let level = configuration.kernels ?? Kernels.best.level
        let threads = configuration.threadsPerRank == 1 ? "one thread" : "\(configuration.threadsPerRank) threads"
        let faster = configuration.profile == .int8 ? NumericsProfile.int8F32 : .f32
        let slower = configuration.profile.roundsToBF16 && level < .amx
        return [
            "layout: \(parallel), \(threads) a rank",
            "cache: \(scheduler.totalPages * scheduler.pageSize) tokens in pages of \(scheduler.pageSize), "
                + "\(configuration.cacheType.rawValue); context length \(scheduler.contextLength)",
            "numerics profile: \(configuration.profile.name), on \(level.rawValue)"
                + (slower ? "; without AMX --dtype \(faster.name) computes faster, rounded differently" : ""),
        ] + (configuration.warning.map { [$0] } ?? [])
    }

    /// Reads the weights that are to be read first, and starts the ranks.
    ///
    /// - Parameters:
    ///   - disaggregation: what the server does with another one; `nil` for nothing.
    ///   - store: where the server keeps prefixes; `nil` for nowhere.
    func start(
        _ job: Job, restartsOnFailure: Bool, _ disaggregation: DisaggregationOptions.Plan? = nil,
        _ store: DiskPrefixStore? = nil
    ) throws -> (service: TextService, engine: Engine) {
        if let preloaded {
            let progress = ProgressBar("reading \(name)")
            defer { progress.finish() }
            try configuration.numa.spreadingFiles { try preloaded.preload { progress.update($0) } }
        }
        var configuration = configuration
        configuration.restartsOnFailure = restartsOnFailure
        let engine = Engine(
            model, configuration, processes: job.processes, grammars: grammars, trace: trace, log: note)
        if let store { engine.attach(store) }
        let partner = try disaggregation.map { try connect(engine, $0) }
        var prefixStore: (@Sendable () -> PrefixStoreStatus)?
        if let store { prefixStore = { store.status } }
        let service = TextService(
            engine: engine, tokenizer: tokenizer, defaults: defaults, endOfText: endTokens, chatFormat: chatFormat,
            transfers: partner?.service, prefixStore: prefixStore)
        return (service, engine)
    }

    /// Opens the directory in which the server keeps prefixes.
    func openStore(_ settings: DiskPrefixStore.Settings) throws -> DiskPrefixStore {
        let digest = try ContentDigest(model: directory, weights: hasWeights)
        // The digest reads samples of the weights, which is too little for keys that outlive the server.
        let weights = hasWeights ? try Self.writeTimes(ofWeightsIn: directory) : "random weights"
        do {
            return try DiskPrefixStore(
                settings, model, configuration, digest: "\(digest), \(weights)", log: note)
        } catch {
            throw CommandError("--prefix-cache-dir: \(error)")
        }
    }

    /// Returns when each file of weights was last written, in seconds.
    private static func writeTimes(ofWeightsIn directory: String) throws -> String {
        let names = try FileManager.default.contentsOfDirectory(atPath: directory).filter {
            $0.hasSuffix(".safetensors")
        }
        return try names.sorted().map { name in
            // Files of download caches are symbolic links.
            let file = URL(fileURLWithPath: directory + "/" + name).resolvingSymlinksInPath().path
            let date = try FileManager.default.attributesOfItem(atPath: file)[.modificationDate] as? Date
            return "\(name) \(date?.timeIntervalSince1970 ?? 0)"
        }.joined(separator: ", ")
    }

    /// Lets an engine exchange keys with that of another server.
    private func connect(_ engine: Engine, _ plan: DisaggregationOptions.Plan) throws -> DisaggregatedEngine {
        let digest = try ContentDigest(model: directory, weights: hasWeights)
        return try DisaggregatedEngine(plan, ServerCard(model, configuration, digest: "\(digest)"), engine)
    }
}

extension TokenizerOptions {
    /// Returns the tokenizer of a model, and its vocabulary in the form that grammars need.
    ///
    /// - Parameter size: The size of the model's vocabulary.
    func vocabulary(
        _ model: ModelDirectory, size: Int
    ) throws -> (tokenizer: Tokenizer, grammar: GrammarVocabulary) {
        let folder = directory(model)
        try ModelDirectory.checkTokenizer(in: folder.path)
        let tokenizer = try Tokenizer(directory: folder)
        guard tokenizer.vocabularySize <= size else {
            throw CommandError(
                "tokenizer.json has \(tokenizer.vocabularySize) ids, config.json a vocabulary of \(size): they belong to "
                    + "different models")
        }
        return (tokenizer, GrammarVocabulary(tokenizer, size: size))
    }
}

extension SamplingDefaults {
    /// Takes the parameters that a checkpoint recommends.
    fileprivate mutating func follow(_ generation: GenerationDefaults) {
        if let value = generation.temperature { temperature = value }
        if let value = generation.topP { topP = value }
        if let value = generation.topK { topK = value }
        if let value = generation.minP { minP = value }
        if let value = generation.repetitionPenalty { repetitionPenalty = value }
    }
}
