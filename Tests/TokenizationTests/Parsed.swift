import Testing
import Tokenization

/// The events of a parser for an output, joined by kind.
struct Parsed: Equatable {
    var reasoning = ""
    var content = ""
    /// The complete calls.
    var calls: [String] = []
    /// The calls that began and were malformed, with the arguments that were streamed.
    var broken: [String] = []
    private var open: (name: String, arguments: String)?

    static func == (left: Parsed, right: Parsed) -> Bool {
        (left.reasoning, left.content, left.calls, left.broken)
            == (right.reasoning, right.content, right.calls, right.broken)
    }

    /// Parses an output that comes in pieces.
    ///
    /// - Parameters:
    ///   - toolCalls: the markup of the tool calls to parse; `nil` if the prompt offers no tools.
    ///   - isCut: whether a limit ends the output.
    init(
        _ pieces: [String], thinking: Bool = false, toolCalls: ToolCallMarkup? = .deepSeek(.functionCalls),
        isCut: Bool = false
    ) {
        var parser = OutputParser(startsInReasoning: thinking, toolCalls: toolCalls)
        for piece in pieces { add(parser.feed(piece)) }
        add(parser.finish(isCut: isCut))
        #expect(open == nil)
    }

    private mutating func add(_ events: [OutputParser.Event]) {
        for event in events {
            switch event {
            case .reasoning(let text): reasoning += text
            case .content(let text): content += text
            case .toolCallStart(let index, let name):
                #expect(index == calls.count + broken.count && open == nil)
                open = (name, "")
            case .toolCallArguments(let index, let text):
                #expect(index == calls.count + broken.count)
                open?.arguments += text
            case .toolCallEnd:
                guard let (name, arguments) = open else { preconditionFailure("a call ends that did not begin") }
                calls.append("\(name)(\(arguments))")
                open = nil
            case .toolCallBroken(_, let text):
                guard let (name, arguments) = open else { preconditionFailure("a call breaks that did not begin") }
                broken.append("\(name)(\(arguments)")
                content += text
                open = nil
            }
        }
    }
}
