/// The value of `--context-length`: a number of tokens, or the length that the model was made for.
enum ContextChoice: Sendable, Equatable, CustomStringConvertible {
    case auto
    case most(Int)

    /// Reads a number of tokens such as `4096`, `128k` or `128K`; `auto` and `-1`, as in vLLM, leave it to the model.
    ///
    /// - Throws: `ValidationError` with the legal values.
    init(_ text: String) throws {
        self = ["auto", "-1"].contains(text) ? .auto : .most(try Parsing.count(1...Parsing.maxTokens)(text))
    }

    var tokens: Int? { if case .most(let tokens) = self { tokens } else { nil } }

    var description: String { tokens.map(String.init) ?? "auto" }
}
