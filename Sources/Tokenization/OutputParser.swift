/// Takes a model's output apart while it comes: reasoning, answer, tool calls.
///
/// One parser serves streaming and whole outputs; joined together, its events do not depend on how the output was cut
/// into pieces. It reads text from a decoder that keeps `ChatFormat.keptTokens`.
package struct OutputParser: Sendable {
    package enum Event: Sendable, Equatable {
        case reasoning(String)
        case content(String)
        /// A whole tool call; `index` counts from 0, `arguments` is the text of a JSON object.
        case toolCall(index: Int, name: String, arguments: String)
    }

    private var reasoning: ReasoningParser
    private var toolCalls: ToolCallParser?

    /// - Parameters:
    ///   - startsInReasoning: `ChatPrompt.startsInReasoning`.
    ///   - parsesToolCalls: whether tool calls are looked for; say `false` where no tools were offered.
    package init(startsInReasoning: Bool, parsesToolCalls: Bool) {
        reasoning = ReasoningParser(isOpen: startsInReasoning)
        toolCalls = parsesToolCalls ? ToolCallParser() : nil
    }

    /// The events that `text` completes. What may be the beginning of a mark is held back.
    package mutating func feed(_ text: String) -> [Event] {
        let (thought, rest) = reasoning.feed(text)
        let events: [Event] = thought.isEmpty ? [] : [.reasoning(thought)]
        guard !rest.isEmpty else { return events }
        return events + (toolCalls?.feed(rest) ?? [.content(rest)])
    }

    /// The end of the output: what was held back is text after all; a tool call that is not complete is dropped.
    package mutating func finish() -> [Event] {
        let thought = reasoning.finish()
        return (thought.isEmpty ? [] : [.reasoning(thought)]) + (toolCalls?.finish() ?? [])
    }
}
