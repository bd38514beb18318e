/// Separates a model's output, while it is generated, into reasoning, answer and tool calls.
///
/// One parser serves streaming and whole outputs; joined together, its events do not depend on how the output was cut
/// into pieces, and they hold every character that is no markup. It reads text from a decoder that keeps
/// `ChatFormat.keptTokens`.
package struct OutputParser: Sendable {
    package enum Event: Sendable, Equatable {
        case reasoning(String)
        case content(String)
        /// A tool call begins; `index` counts from 0.
        case toolCallStart(index: Int, name: String)
        /// A piece of the text of a JSON object.
        case toolCallArguments(index: Int, String)
        /// The object is complete.
        case toolCallEnd(index: Int)
        /// The call will never be complete. `text` is all of it as the model wrote it.
        case toolCallBroken(index: Int, text: String)
    }

    /// `nil` where reasoning is not told apart.
    private var reasoning: ReasoningParser?
    private var toolCalls: ToolCallParser?

    /// Creates a parser of one output.
    ///
    /// - Parameters:
    ///   - startsInReasoning: `ChatPrompt.startsInReasoning`.
    ///   - parsesReasoning: whether reasoning is told apart from the answer.
    ///   - parsesToolCalls: whether tool calls are looked for; say `false` where no tools were offered.
    package init(startsInReasoning: Bool, parsesReasoning: Bool = true, parsesToolCalls: Bool) {
        reasoning =
            parsesReasoning ? ReasoningParser(isOpen: startsInReasoning, endsWithCalls: parsesToolCalls) : nil
        toolCalls = parsesToolCalls ? ToolCallParser() : nil
    }

    /// Whether what comes next is reasoning.
    package var isInReasoning: Bool { reasoning?.isOpen ?? false }

    /// The events that `text` completes. What may be the beginning of a mark is held back.
    package mutating func feed(_ text: String) -> [Event] {
        let (thought, rest) = reasoning?.feed(text) ?? ("", text)
        return (thought.isEmpty ? [] : [.reasoning(thought)]) + answer(rest)
    }

    /// The end of the output: what was held back is text after all.
    package mutating func finish() -> [Event] {
        let (thought, rest) = reasoning?.finish() ?? ("", "")
        return (thought.isEmpty ? [] : [.reasoning(thought)]) + answer(rest) + (toolCalls?.finish() ?? [])
    }

    private mutating func answer(_ text: String) -> [Event] {
        guard !text.isEmpty else { return [] }
        return toolCalls?.feed(text) ?? [.content(text)]
    }
}
