import ArgumentParser
package import Tokenization

/// These options name the parsers of a model's output and the encoder of its prompts.
///
/// The chat format of the checkpoint determines the parsers; their options exist so that commands written for SGLang
/// or vLLM work, and are refused if they name another format's parser. DeepSeek-V4 has two encoders (`ChatFormat.deepSeekV4`).
package struct ParserOptions: ParsableArguments, Sendable {
    @Option(help: "auto, or SGLang's or vLLM's name of the parser that the model's chat format has, such as glm47.")
    var toolCallParser = "auto"

    @Option(help: "auto, or SGLang's or vLLM's name of the parser that the model's chat format has, such as glm45.")
    var reasoningParser = "auto"

    @Option(
        help: """
            The encoder of DeepSeek-V4's conversations: checkpoint, the one that is released with the checkpoint, or \
            recipe, DeepSeek's later library deepseek-recipe, whose reasoning efforts are stronger. SGLang uses the \
            latter.
            """)
    var chatEncoder: ChatEncoder = .checkpoint

    package enum ChatEncoder: String, ExpressibleByArgument, CaseIterable, Sendable {
        case checkpoint, recipe
    }

    package init() {}

    /// Returns the chat format of a tokenizer's model.
    ///
    /// - Throws: `CommandError` if an option does not fit that format.
    package func chatFormat(_ tokenizer: Tokenizer) throws -> Result<ChatFormat, ChatError> {
        let format = Result { () throws(ChatError) in try ChatFormat.detect(tokenizer) }
        try Self.check("--tool-call-parser", toolCallParser, format.map(\.toolCallParsers))
        try Self.check("--reasoning-parser", reasoningParser, format.map(\.reasoningParsers))
        guard chatEncoder == .recipe else { return format }
        guard case .success(.deepSeekV4) = format else {
            throw CommandError("--chat-encoder: only DeepSeek-V4 has the encoder 'recipe'; leave the option out")
        }
        return .success(.deepSeekV4Recipe)
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
