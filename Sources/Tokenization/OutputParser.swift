/// Separates a model's output, while it is generated, into reasoning, answer and tool calls.
///
/// One parser serves streaming and whole outputs: its joined events do not depend on how the output was cut into
/// pieces. It reads text from a decoder that keeps `ChatFormat.keptTokens`.
package struct OutputParser: Sendable {
    package enum Event: Sendable, Equatable {
        case reasoning(String)
        case content(String)
        /// Is a whole tool call; `index` counts from 0, `arguments` is the text of a JSON object.
        case toolCall(index: Int, name: String, arguments: String)
    }

    private var reasoning: ReasoningParser
    private var toolCalls: ToolCallParser?

    /// Creates a parser of one output.
    ///
    /// - Parameters:
    ///   - startsInReasoning: `ChatPrompt.startsInReasoning`.
    ///   - parsesToolCalls: whether to look for tool calls; `false` if no tools were offered.
    package init(startsInReasoning: Bool, parsesToolCalls: Bool) {
        reasoning = ReasoningParser(isOpen: startsInReasoning)
        toolCalls = parsesToolCalls ? ToolCallParser() : nil
    }

    /// Returns the events that `text` completes. Text that may begin a mark is held back.
    package mutating func feed(_ text: String) -> [Event] {
        let (thought, rest) = reasoning.feed(text)
        let events: [Event] = thought.isEmpty ? [] : [.reasoning(thought)]
        guard !rest.isEmpty else { return events }
        return events + (toolCalls?.feed(rest) ?? [.content(rest)])
    }

    /// Ends the output: text that was held back becomes an event, and an incomplete tool call is dropped.
    package mutating func finish() -> [Event] {
        let thought = reasoning.finish()
        return (thought.isEmpty ? [] : [.reasoning(thought)]) + (toolCalls?.finish() ?? [])
    }
}
