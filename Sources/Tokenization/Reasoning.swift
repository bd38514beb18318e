/// Splits the output of a reasoning model: everything up to the first `</think>` is reasoning, the rest is the answer.
/// Output that ends before the mark is all reasoning.
///
/// A `<think>` at the very beginning is markup, because a model may repeat the one at the end of the prompt, or reason
/// although the prompt does not ask for it. A tool call ends reasoning too; a `</think>` after it is then markup.
struct ReasoningParser: Sendable {
    static let begin = "<think>"
    static let end = "</think>"

    private enum Phase {
        /// The output so far is only blanks and a beginning of `<think>`.
        case opening(held: String)
        case reasoning
        /// The reasoning has ended. `awaitsEnd` is true if a tool call ended it, so that its `</think>` may still
        /// follow.
        case answer(awaitsEnd: Bool)
    }

    private var phase = Phase.opening(held: "")
    private var startsOpen: Bool
    private var search: StopStrings
    private var late = StopStrings([end])

    /// Creates a parser of one output.
    ///
    /// - Parameters:
    ///   - isOpen: whether the prompt ended with `<think>`, so that the output begins inside the reasoning.
    ///   - callOpenings: the beginnings of tool calls, which end reasoning too.
    init(isOpen: Bool, callOpenings: [String]) {
        startsOpen = isOpen
        search = StopStrings([Self.end] + callOpenings)
    }

    /// True if the output so far ends inside reasoning.
    var isOpen: Bool {
        switch phase {
        case .opening: startsOpen
        case .reasoning: true
        case .answer: false
        }
    }

    mutating func feed(_ text: String) -> (reasoning: String, rest: String) {
        switch phase {
        case .opening(let held): return open(held + text)
        case .reasoning:
            let result = search.feed(text)
            guard let match = result.match else { return (result.text, "") }
            let isCall = !match.utf8.elementsEqual(Self.end.utf8)
            phase = .answer(awaitsEnd: isCall)
            return (result.text, answer(isCall ? match + result.rest : result.rest))
        case .answer: return ("", answer(text))
        }
    }

    /// Ends the output, and returns the text that was held back.
    ///
    /// - Parameter isCut: whether the output was cut off; an unfinished mark at its end is then left out.
    mutating func finish(isCut: Bool) -> (reasoning: String, rest: String) {
        func kept(_ held: String) -> String { isCut && UnfinishedMarkup.isCertain(held.utf8) ? "" : held }
        switch phase {
        case .opening(let held): return startsOpen ? (kept(held), "") : ("", kept(held))
        case .reasoning: return (kept(search.finish()), "")
        case .answer(let awaitsEnd): return ("", awaitsEnd ? kept(late.finish()) : "")
        }
    }

    private mutating func open(_ text: String) -> (reasoning: String, rest: String) {
        let mark = Array(Self.begin.utf8)
        let inner = text.utf8.drop { $0 == 0x20 || 0x09...0x0D ~= $0 }
        if inner.count < mark.count, mark.starts(with: inner) {
            phase = .opening(held: text)
            return ("", "")
        }
        if inner.starts(with: mark) {
            phase = .reasoning
            return feed(String(decoding: inner.dropFirst(mark.count), as: UTF8.self))
        }
        phase = startsOpen ? .reasoning : .answer(awaitsEnd: false)
        return feed(text)
    }

    private mutating func answer(_ text: String) -> String {
        guard case .answer(awaitsEnd: true) = phase else { return text }
        let result = late.feed(text)
        if result.match != nil { phase = .answer(awaitsEnd: false) }
        return result.text + result.rest
    }
}
