/// Splits the output of a reasoning model: everything up to the first `</think>` is reasoning, the rest is the answer.
/// Output that ends before the mark is all reasoning.
struct ReasoningParser: Sendable {
    static let end = "</think>"

    private var search = StopStrings([end])
    /// Is true while the output is reasoning.
    private(set) var isOpen: Bool

    /// Creates a parser of one output.
    ///
    /// - Parameter isOpen: whether the prompt ended with `<think>`, so that the output begins inside.
    init(isOpen: Bool) {
        self.isOpen = isOpen
    }

    mutating func feed(_ text: String) -> (reasoning: String, rest: String) {
        guard isOpen else { return ("", text) }
        let result = search.feed(text)
        if result.match != nil { isOpen = false }
        return (result.text, result.rest)
    }

    mutating func finish() -> String { search.finish() }
}
