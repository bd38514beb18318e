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
import Synchronization
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
    /// The members of `generation_config.json` that recommend what no request can have here.
    private var unusedDefaults: [String]
    private let tokenizer: Tokenizer
    private let tokenizerWarning: String?
    private let grammars: GrammarCache
    private let endTokens: Set<Int32>
    /// The files to read before ranks start, if they are asked for.
    private let preloaded: WeightIndex?
    private let name: String
    private let digest: Digest

    /// Maps the weights and checks all options, without printing anything before the last check.
    init(
        _ options: EngineOptions, _ tokenizerOptions: TokenizerOptions, _ parsers: ParserOptions,
        _ directory: ModelDirectory, _ job: Job
    ) throws {
        let vocabulary: GrammarVocabulary
        (tokenizer, vocabulary, tokenizerWarning) = try tokenizerOptions.vocabulary(
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
        digest = Digest(of: directory.path, coversWeights: options.loadFormat == .auto)
        unusedDefaults = directory.generation.unusedMembers
        defaults.follow(directory.generation)
    }

    /// Gives requests OpenAI's sampling parameters in place of those that the checkpoint recommends.
    mutating func dropDefaults() {
        defaults = SamplingDefaults()
        unusedDefaults = []
    }

    /// What an operator should know when the ranks start: the layout, the cache and the numerics, a line each.
    var startLines: [String] {
        let parallel = configuration.parallel
        let scheduler = configuration.scheduler(for: model)
        let level = configuration.kernels ?? Kernels.best.level
        let threads = configuration.threadsPerRank == 1 ? "one thread" : "\(configuration.threadsPerRank) threads"
        let faster = configuration.profile == .int8 ? NumericsProfile.int8F32 : .f32
        let slower = configuration.profile.roundsToBF16 && level < .amx
        let unused = unusedDefaults.joined(separator: ", ")
        let defaultsWarning = unused.isEmpty ? nil : "generation_config.json: has no effect here: \(unused)"
        return [
            "layout: \(parallel), \(threads) a rank",
            "cache: \(scheduler.totalPages * scheduler.pageSize) tokens in pages of \(scheduler.pageSize), "
                + "\(configuration.cacheType.rawValue); context length \(scheduler.contextLength)",
            "numerics profile: \(configuration.profile.name), on \(level.rawValue)"
                + (slower ? "; without AMX --dtype \(faster.name) computes faster, rounded differently" : ""),
        ] + [configuration.warning, tokenizerWarning, defaultsWarning].compactMap { $0 }
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
        // The digest reads samples of the weights, which is too little for keys that outlive the server.
        let weights = digest.coversWeights ? try WeightFiles(in: digest.directory).writeTimes : "random weights"
        let digest = try digest.text
        do {
            return try DiskPrefixStore(
                settings, model, configuration, digest: "\(digest), \(weights)", log: note)
        } catch {
            throw CommandError("--prefix-cache-dir: \(error)")
        }
    }

    /// Lets an engine exchange keys with that of another server.
    private func connect(_ engine: Engine, _ plan: DisaggregationOptions.Plan) throws -> DisaggregatedEngine {
        try DisaggregatedEngine(plan, ServerCard(model, configuration, digest: try digest.text), engine)
    }

    /// The digest of the checkpoint, which identifies the model for another server. It is read when it is first needed.
    private final class Digest: Sendable {
        let directory: String
        /// True if the weights are used.
        let coversWeights: Bool
        private let known = Mutex<ContentDigest?>(nil)

        init(of directory: String, coversWeights: Bool) {
            (self.directory, self.coversWeights) = (directory, coversWeights)
        }

        var text: String {
            get throws {
                let digest = try known.withLock { known in
                    let digest = try known ?? ContentDigest(model: directory, weights: coversWeights)
                    known = digest
                    return digest
                }
                return "\(digest)"
            }
        }
    }
}

extension TokenizerOptions {
    /// Returns the tokenizer of a model, its vocabulary in the form that grammars need, and a warning if it is probably of
    /// another model.
    ///
    /// - Parameter size: The size of the model's vocabulary.
    func vocabulary(
        _ model: ModelDirectory, size: Int
    ) throws -> (tokenizer: Tokenizer, grammar: GrammarVocabulary, warning: String?) {
        let folder = directory(model)
        try ModelDirectory.checkTokenizer(in: folder.path)
        let tokenizer = try Tokenizer.read(folder)
        let sizes = VocabularySizes(
            tokenizer: tokenizer.vocabularySize, in: folder.path, model: size, in: model.path)
        try sizes.check()
        return (tokenizer, GrammarVocabulary(tokenizer, size: size), sizes.warning)
    }
}

extension Tokenizer {
    /// Reads the tokenizer of a checkpoint.
    ///
    /// - Throws: `CommandError` that names the directory and says what to do.
    static func read(_ directory: URL) throws(CommandError) -> Tokenizer {
        do {
            return try Tokenizer(directory: directory)
        } catch {
            throw CommandError(
                "\(directory.path): \(error); copy tokenizer.json and tokenizer_config.json from the released checkpoint, "
                    + "or give its directory as --tokenizer-path")
        }
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
        if let value = generation.presencePenalty { presencePenalty = value }
        if let value = generation.frequencyPenalty { frequencyPenalty = value }
        if let value = generation.skipsSpecialTokens { skipsSpecialTokens = value }
        maxNewTokens = generation.maxNewTokens
    }
}
