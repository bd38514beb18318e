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
        /// The call is malformed or was cut off, and ends incomplete. `text` is the whole call as the model wrote it, and
        /// `rest` what its arguments do not have of it, without markup. Who keeps the call needs `rest`; who takes it
        /// back needs `text`.
        case toolCallBroken(index: Int, text: String, rest: String)
    }

    /// The parser of reasoning; `nil` if reasoning is not separated.
    private var reasoning: ReasoningParser?
    private var toolCalls: Calls?

    /// Creates a parser of one output.
    ///
    /// - Parameters:
    ///   - startsInReasoning: `ChatPrompt.startsInReasoning`.
    ///   - parsesReasoning: whether reasoning is separated from the answer.
    ///   - toolCalls: the markup of the tool calls to parse; `nil` if the prompt offers no tools.
    package init(startsInReasoning: Bool, parsesReasoning: Bool = true, toolCalls markup: ToolCallMarkup?) {
        reasoning =
            parsesReasoning
            ? ReasoningParser(isOpen: startsInReasoning, callOpenings: markup?.openingsWithBreaks ?? []) : nil
        toolCalls = markup.map(Calls.init)
    }

    /// The parser of one markup of tool calls.
    private enum Calls {
        case deepSeek(ToolCallParser)
        case glm(GLMToolCallParser)

        init(_ markup: ToolCallMarkup) {
            self =
                switch markup {
                case .deepSeek(let block, let types): .deepSeek(ToolCallParser(block, types))
                case .glm(let types): .glm(GLMToolCallParser(types))
                }
        }

        mutating func feed(_ text: String) -> [Event] {
            switch self {
            case .deepSeek(var parser):
                defer { self = .deepSeek(parser) }
                return parser.feed(text)
            case .glm(var parser):
                defer { self = .glm(parser) }
                return parser.feed(text)
            }
        }

        mutating func finish(isCut: Bool) -> [Event] {
            switch self {
            case .deepSeek(var parser): parser.finish(isCut: isCut)
            case .glm(var parser): parser.finish(isCut: isCut)
            }
        }
    }

    /// True if the output so far ends inside reasoning.
    package var isInReasoning: Bool { reasoning?.isOpen ?? false }

    /// Returns the events that `text` completes. Text that may be the beginning of a mark is held back.
    package mutating func feed(_ text: String) -> [Event] {
        let (thought, rest) = reasoning?.feed(text) ?? ("", text)
        return (thought.isEmpty ? [] : [.reasoning(thought)]) + answer(rest)
    }

    /// Ends the output, and returns the events of the text that was held back.
    ///
    /// - Parameter isCut: whether a limit cut the output off. A call whose name is known is then begun even if it has
    ///   no arguments yet, and the unfinished markup at the end is left out.
    package mutating func finish(isCut: Bool = false) -> [Event] {
        let (thought, rest) = reasoning?.finish(isCut: isCut) ?? ("", "")
        return (thought.isEmpty ? [] : [.reasoning(thought)]) + answer(rest) + (toolCalls?.finish(isCut: isCut) ?? [])
    }

    private mutating func answer(_ text: String) -> [Event] {
        guard !text.isEmpty else { return [] }
        return toolCalls?.feed(text) ?? [.content(text)]
    }
}

/// The ways in which models write tool calls.
package enum ToolCallMarkup: Sendable {
    /// The markup of DeepSeek-V3.2 or V4. The types of the tools' parameters correct its own.
    case deepSeek(DSMLBlock, ToolParameterTypes = ToolParameterTypes([]))
    /// The markup of GLM-4.7 and GLM-5, whose values need the types of the tools' parameters.
    case glm(ToolParameterTypes)

    /// The texts by which calls begin.
    package var openings: [String] {
        switch self {
        case .deepSeek(let block, _): block.openings
        case .glm: [GLMToolCallParser.opening]
        }
    }

    /// The texts by which calls begin, also with the line breaks before them that are markup.
    var openingsWithBreaks: [String] {
        switch self {
        case .deepSeek: openings + openings.map { "\n\n" + $0 }
        case .glm: openings + openings.map { "\n" + $0 } + openings.map { "\n\n" + $0 }
        }
    }
}
