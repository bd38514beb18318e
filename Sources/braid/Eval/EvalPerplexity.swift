import ArgumentParser
import Foundation
import JSON

/// The command measures how well the model predicts a text.
struct EvalPerplexity: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ppl",
        abstract: "Measures the perplexity of a text file.",
        discussion: """
            The text is cut into windows, each scored by /generate with logprob_start_len 0. Windows begin with the \
            beginning-of-text token where the tokenizer adds one (add_bos_token); every token of the text counts once, but \
            for the first where nothing is before it.
            """)

    @OptionGroup var options: EvalOptions

    @Option(help: "The text file.")
    var dataPath: String

    @Option(help: "Tokens of a window.", transform: Parsing.count(1...Parsing.maxTokens))
    var context = 2048

    @Option(
        help: "Tokens by which windows move on; default: the whole window. Less gives tokens more to go by.",
        transform: Parsing.count(1...Parsing.maxTokens))
    var stride: Int?

    func validate() throws {
        var problems: [String] = []
        if !(16...1 << 24).contains(context) {
            problems.append("--context: \(context) is not between 16 and \(1 << 24)")
        }
        if let stride, !(1...max(context, 1)).contains(stride) {
            problems.append("--stride: \(stride) is not between 1 and --context, \(context)")
        }
        guard problems.isEmpty else { throw ValidationError(problems.joined(separator: "\n")) }
    }

    /// A file of this size, as a JSON string, fits the bodies that a server accepts.
    private static let fileLimit = 4 << 20

    func run() async throws {
        let file = try DataFile(path: dataPath, limit: Self.fileLimit)
        guard let text = String(validating: file.bytes, as: UTF8.self) else {
            throw CommandError("\(dataPath) is not UTF-8; convert it")
        }
        let (server, facts) = try await options.connect()
        try facts.check(longest: context, "--context \(context)")
        let tokens = try await server.tokens(of: [text], addingSpecialTokens: false)[0]
        let prefix = try await server.tokens(of: [""], addingSpecialTokens: true)[0]
        guard context - prefix.count >= 2 else { throw CommandError("--context: \(context) leaves no room for text") }
        let windows = Perplexity.windows(
            tokens: tokens.count, capacity: context - prefix.count, stride: stride ?? context,
            hasPrefix: !prefix.isEmpty)
        guard !windows.isEmpty else { throw CommandError("\(dataPath) has no text to score; give a longer one") }
        let asked = await ask(windows, parallel: options.parallel, title: "\(windows.count) windows") { window in
            let scores = try await server.logProbs(of: prefix + tokens[window.shown])
            // Only the first token has no log-probability, and it is never scored.
            return scores.suffix(window.scored.count).compactMap(\.self)
        }
        // Windows that failed would leave gaps in the text and change its perplexity.
        var result = Perplexity(bytes: asked.failures.isEmpty ? file.bytes.count : 0)
        if asked.failures.isEmpty { for scores in asked.answers { result.add(scores ?? []) } }
        try options.report(
            json(result, model: facts.model, windows: windows.count, asked.seconds),
            text: """
                Perplexity: \(digits(result.perplexity))
                Bits per byte: \(digits(result.bitsPerByte))
                Tokens: \(result.tokens) in \(windows.count) windows
                Latency: \(digits(asked.seconds)) s
                """, failures: asked.failures)
    }

    private func json(_ result: Perplexity, model: String, windows: Int, _ seconds: Double) -> JSONValue {
        .fields([
            "task": .string("ppl"), "model": .string(model), "perplexity": .measured(result.perplexity),
            "bits_per_byte": .measured(result.bitsPerByte), "num_tokens": .integer(result.tokens),
            "num_bytes": .integer(result.bytes), "num_windows": .integer(windows), "context": .integer(context),
            "stride": .integer(stride ?? context), "latency": .measured(seconds),
            "parallel": .integer(options.parallel),
        ])
    }
}
