/// Separates a model's output, while it is generated, into reasoning, answer and tool calls.
///
/// The parser is used for streams and for whole outputs: joined together, its events do not depend on how the output is
/// divided into pieces, and they contain every character that is not markup. The decoder of its text must keep
/// `ChatFormat.keptTokens`.
package struct OutputParser: Sendable {
    package enum Event: Sendable, Equatable {
        case reasoning(String)
        case content(String)
        /// A tool call begins; `index` counts from 0.
        case toolCallStart(index: Int, name: String)
        /// A piece of the arguments, which are the text of a JSON object.
        case toolCallArguments(index: Int, String)
        /// The call is complete.
        case toolCallEnd(index: Int)
        /// The call is malformed and ends incomplete. `text` is the whole call as the model wrote it.
        case toolCallBroken(index: Int, text: String)
    }

    /// The parser of reasoning; `nil` if reasoning is not separated.
    private var reasoning: ReasoningParser?
    private var toolCalls: ToolCallParser?

    /// Creates a parser of one output.
    ///
    /// - Parameters:
    ///   - startsInReasoning: `ChatPrompt.startsInReasoning`.
    ///   - parsesReasoning: whether reasoning is separated from the answer.
    ///   - parsesToolCalls: whether tool calls are parsed; it must be `false` if the prompt offers no tools.
    package init(startsInReasoning: Bool, parsesReasoning: Bool = true, parsesToolCalls: Bool) {
        reasoning =
            parsesReasoning ? ReasoningParser(isOpen: startsInReasoning, endsWithCalls: parsesToolCalls) : nil
        toolCalls = parsesToolCalls ? ToolCallParser() : nil
    }

    /// Whether the output so far ends inside reasoning.
    package var isInReasoning: Bool { reasoning?.isOpen ?? false }

    /// Returns the events that `text` completes. Text that may be the beginning of a mark is held back.
    package mutating func feed(_ text: String) -> [Event] {
        let (thought, rest) = reasoning?.feed(text) ?? ("", text)
        return (thought.isEmpty ? [] : [.reasoning(thought)]) + answer(rest)
    }

    /// Ends the output, and returns the events of the text that was held back.
    package mutating func finish() -> [Event] {
        let (thought, rest) = reasoning?.finish() ?? ("", "")
        return (thought.isEmpty ? [] : [.reasoning(thought)]) + answer(rest) + (toolCalls?.finish() ?? [])
    }

    private mutating func answer(_ text: String) -> [Event] {
        guard !text.isEmpty else { return [] }
        return toolCalls?.feed(text) ?? [.content(text)]
    }
}
