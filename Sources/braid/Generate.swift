import ArgumentParser
import Foundation
import Inference
import Modeling
import Models
import Parallelism
import Serving
import Tensors
import Tokenization

/// The command generates one answer to one prompt, without a server.
struct Generate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Continues a prompt and prints what it cost.",
        discussion: "The text goes to standard output; everything else to standard error.")

    @OptionGroup var engineOptions: EngineOptions

    @OptionGroup(title: "Tokenizer") var tokenizerOptions: TokenizerOptions

    @Option(help: "The prompt.")
    var prompt: String?

    @Option(help: "A file with the prompt.")
    var promptFile: String?

    @Option(help: "The prompt as token ids, separated by commas.")
    var inputIds: String?

    @Option(
        name: [.customLong("max-new-tokens"), .customLong("max-tokens")], help: "New tokens, at most.",
        transform: Parsing.count(0...Parsing.maxTokens))
    var maxNewTokens = 128

    @Option(help: "0 takes the best token each time.", transform: Parsing.number(0...100))
    var temperature = 0.0

    @Option(help: "Keeps the smallest set of best tokens with this probability.", transform: Parsing.number(0...1))
    var topP = 1.0

    @Option(help: "Keeps the best so many tokens; 0 keeps all.", transform: Parsing.count(0...Parsing.maxTokens))
    var topK = 0

    @Option(help: "With the position, the whole state of the random numbers.", transform: Parsing.seed())
    var seed: UInt64 = 0

    @Flag(help: "Goes on after the end token.")
    var ignoreEos = false

    @Option(help: "The answer that is right: printed beside what was generated; exit status 1 if it differs.")
    var expect: String?

    @Flag(
        help:
            "Generates once more on one rank, without drafts, and compares every token and log-probability, bit for bit; exit status 1 if any differs."
    )
    var compareOneRank = false

    func validate() throws {
        guard [prompt, promptFile, inputIds].compactMap({ $0 }).count == 1 else {
            throw ValidationError("give exactly one of --prompt, --prompt-file and --input-ids")
        }
    }

    func run() async throws {
        let job = try engineOptions.join()
        try await job.run({ try engineOptions.load().model }, lead: { try await generate(job) })
    }

    private func generate(_ job: Job) async throws {
        let (directory, model, profile) = try engineOptions.load()
        let configuration = try engineOptions.engineConfiguration(for: model, profile, job)
        let tokenizer = try tokenizer(tokenizerOptions.directory(directory))
        if let tokenizer {
            let sizes = VocabularySizes(
                tokenizer: tokenizer.vocabularySize, in: tokenizerOptions.directory(directory).path,
                model: model.vocabularySize, in: directory.path)
            try sizes.check()
            if let warning = sizes.warning { note(warning) }
        }
        let tokens = try tokens(tokenizer, vocabulary: model.vocabularySize)
        let trace = try engineOptions.traceWriter(for: configuration)
        defer { trace?.close() }
        note("numerics profile: \(profile.name)")
        if let warning = configuration.warning { note(warning) }
        if expect != nil, let tokenizer { note("question: …\(ending(of: tokens, tokenizer))") }
        let request = request(tokens, endTokens: directory.generation.endTokens)
        let outcome = try await outcome(
            of: request, model, configuration, job, tokenizer, isShown: true, trace: trace)
        outcome.report(promptTokens: tokens.count, on: configuration.parallel)
        if compareOneRank {
            var alone = configuration
            alone.parallel = ParallelConfiguration()
            alone.drafts = 0
            alone.threadsPerRank = 1
            alone.tuning = Tuning()
            let reference = try await self.outcome(of: request, model, alone, job, nil, isShown: false)
            reference.report(promptTokens: tokens.count, on: alone.parallel)
            try outcome.compare(with: reference)
        }
        try compare(outcome.text)
        trace?.close()
        if let problem = trace?.problem { throw CommandError(problem) }
    }

    private func tokenizer(_ url: URL) throws -> Tokenizer? {
        let exists = FileManager.default.fileExists(atPath: url.appendingPathComponent("tokenizer.json").path)
        if !exists, inputIds == nil {
            throw CommandError("\(url.path) has no tokenizer.json; give the prompt as --input-ids")
        }
        return exists ? try Tokenizer.read(url) : nil
    }

    private func tokens(_ tokenizer: Tokenizer?, vocabulary: Int) throws -> [Int32] {
        if let inputIds {
            return try inputIds.split(separator: ",").map { field in
                let text = field.trimmingCharacters(in: .whitespaces)
                guard let id = Int32(text), id >= 0, Int(id) < vocabulary else {
                    throw CommandError("--input-ids: '\(text)' is not a token id between 0 and \(vocabulary - 1)")
                }
                return id
            }
        }
        return tokenizer!.encodePrompt(try prompt ?? Self.text(ofFile: promptFile!))
    }

    /// A prompt may have this many bytes; no model has positions for more.
    private static let maxPromptBytes = 256 << 20

    private static func text(ofFile path: String) throws -> String {
        let file = try DataFile(path: path, option: "--prompt-file", limit: maxPromptBytes)
        guard let text = String(validating: file.bytes, as: UTF8.self) else {
            throw CommandError("--prompt-file: \(path) is not UTF-8 text")
        }
        return text
    }

    private func request(_ tokens: [Int32], endTokens: [Int32]) -> GenerationRequest {
        var sampling = SamplingParameters()
        sampling.temperature = Float(temperature)
        sampling.topP = Float(topP)
        sampling.topK = topK
        sampling.seed = seed
        sampling.maxNewTokens = maxNewTokens
        sampling.stopTokens = ignoreEos ? [] : Set(endTokens)
        return GenerationRequest(
            prompt: tokens, sampling: sampling, logProbs: compareOneRank ? LogProbOptions(topCount: 5) : nil)
    }

    /// Runs the request on an engine of its own, and prints text as it is generated.
    private func outcome(
        of request: GenerationRequest, _ model: any Model, _ configuration: EngineConfiguration, _ job: Job,
        _ tokenizer: Tokenizer?, isShown: Bool, trace: TraceWriter? = nil
    ) async throws -> Outcome {
        let engine = Engine(model, configuration, processes: job.processes, trace: trace)
        defer { engine.stop() }
        let clock = ContinuousClock()
        var outcome = Outcome(start: clock.now)
        let generation = try engine.submit(request)
        let progress = Task { await showPrefill(engine, total: request.prompt.count) }
        defer { progress.cancel() }
        var decoder = tokenizer.map { StreamingDecoder($0) }
        for await event in generation.events {
            switch event {
            case .token(let token):
                progress.cancel()
                if outcome.first == nil { await progress.value }
                outcome.count(token, at: clock.now)
                if !isShown || request.sampling.stopTokens.contains(token.token) { continue }
                outcome.emit(decoder?.feed(token.token) ?? "\(token.token) ")
            case .finished(_, let usage):
                outcome.speculation = usage.speculation
                if isShown { outcome.emit((decoder?.finish() ?? "") + "\n") }
            case .failed(let reason): throw CommandError(reason)
            case .promptLogProbs: break
            }
        }
        return outcome
    }

    /// Shows a progress bar until the first token.
    private func showPrefill(_ engine: Engine, total: Int) async {
        let bar = ProgressBar("prefill \(total) tokens")
        defer { bar.finish() }
        while !Task.isCancelled {
            bar.update(min(Double(engine.status().promptTokens) / Double(total), 1))
            try? await Task.sleep(for: .milliseconds(100))
        }
    }

    private func compare(_ text: String) throws {
        guard let expect else { return }
        let isRight = text.hasPrefix(expect)
        note("expected:\(expect)\nanswer:  \(text.prefix(expect.count)) — \(isRight ? "right" : "WRONG")")
        if !isRight { throw ExitCode(1) }
    }

    /// Returns the last line of the prompt, which shows the question.
    private func ending(of tokens: [Int32], _ tokenizer: Tokenizer) -> String {
        let text = tokenizer.decode(tokens.suffix(200))
        return String(text.split(separator: "\n").last ?? "")
    }
}

/// An outcome holds the generated tokens and their times.
private struct Outcome {
    let start: ContinuousClock.Instant
    var first: ContinuousClock.Instant?
    var last: ContinuousClock.Instant?
    var tokens: [TokenLogProbs] = []
    var text = ""
    var speculation = SpeculationCount()

    init(start: ContinuousClock.Instant) { self.start = start }

    mutating func count(_ token: TokenLogProbs, at instant: ContinuousClock.Instant) {
        first = first ?? instant
        last = instant
        tokens.append(token)
    }

    mutating func emit(_ piece: String) {
        text += piece
        // A terminal must not obey what a model writes; a file gets it as it is.
        let shown = isatty(STDOUT_FILENO) == 1 ? piece.printable : piece
        StandardStreams.write(shown)
    }

    func report(promptTokens: Int, on layout: ParallelConfiguration) {
        guard let first, let last else { return }
        let wait = (first - start) / .seconds(1)
        var line = "\(layout)\n  prompt \(promptTokens) tokens, time to first token \(rounded(wait)) s "
        line += "(\(Int(Double(promptTokens) / wait)) tokens/s)"
        if tokens.count > 1 {
            let rate = Double(tokens.count - 1) / ((last - first) / .seconds(1))
            line += ", then \(tokens.count - 1) tokens at \(Int(rate)) tokens/s"
        }
        if let length = speculation.acceptLength {
            line +=
                "; \(speculation.accepted) of \(speculation.drafted) drafts accepted, accept length \(rounded(length))"
        }
        note(line)
    }

    /// Prints whether another outcome of the same request is bitwise equal.
    ///
    /// - Throws: `ExitCode` if it is not.
    func compare(with other: Outcome) throws {
        if let first = zip(tokens, other.tokens).enumerated().first(where: { $1.0 != $1.1 }) {
            note("DIFFERENT from one rank: token \(first.offset) is \(first.element.0), there \(first.element.1)")
            throw ExitCode(1)
        }
        guard tokens.count == other.tokens.count else {
            note("DIFFERENT from one rank: \(tokens.count) tokens, there \(other.tokens.count)")
            throw ExitCode(1)
        }
        note("equal to one rank: \(tokens.count) tokens, their log-probabilities and the five best, bit for bit")
    }
}

/// Returns a number with three decimal places.
func rounded(_ value: Double) -> String { String(format: "%.3f", value) }

/// Writes a line to standard error.
func note(_ line: String) { Log.write(.notice, line) }
