import ArgumentParser
package import Tokenization

/// These options name the parsers of a model's output. The chat format of the checkpoint determines them; the options
/// exist so that commands written for SGLang work, and are refused if they name another format's parser.
package struct ParserOptions: ParsableArguments, Sendable {
    @Option(help: "auto, or SGLang's name of the parser that the model's chat format has, such as glm47.")
    var toolCallParser = "auto"

    @Option(help: "auto, or SGLang's name of the parser that the model's chat format has, such as glm45.")
    var reasoningParser = "auto"

    package init() {}

    /// - Throws: `CommandError` if an option names a parser that is not that of the tokenizer's chat format.
    package func check(_ tokenizer: Tokenizer) throws {
        let format = Result { () throws(ChatError) in try ChatFormat.detect(tokenizer) }
        try Self.check("--tool-call-parser", toolCallParser, format.map(\.toolCallParsers))
        try Self.check("--reasoning-parser", reasoningParser, format.map(\.reasoningParsers))
    }

    private static func check(_ option: String, _ name: String, _ known: Result<[String], ChatError>) throws {
        if name == "auto" { return }
        switch known {
        case .failure(let error): throw CommandError("\(option): \(error)")
        case .success(let names) where names.contains(name): return
        case .success(let names):
            let legal = (["auto"] + names).joined(separator: ", ")
            throw CommandError("\(option): '\(name)' is not a parser of this model's chat format; use one of \(legal)")
        }
    }
}
