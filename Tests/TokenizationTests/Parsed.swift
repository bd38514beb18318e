import Testing
import Tokenization

/// The events of a parser for an output, joined by kind.
struct Parsed: Equatable {
    var reasoning = ""
    /// The content of an answer that is sent whole: a broken call is taken back, and its text is content. Only one that a
    /// limit cut stays.
    var content = ""
    /// The content of a stream: what was sent of a broken call stays, and the rest of its text is content.
    var streamed = ""
    /// The complete calls.
    var calls: [String] = []
    /// The calls that began and were malformed, with the arguments that were streamed.
    var broken: [String] = []
    /// The call that a limit cut.
    private var cut: String?
    private var open: (name: String, arguments: String)?

    /// Everything in an answer that is sent whole, and everything in a stream.
    var views: [String] {
        let same = reasoning + calls.joined()
        return [same + content + (cut ?? ""), same + streamed + broken.joined()]
    }

    static func == (left: Parsed, right: Parsed) -> Bool {
        (left.reasoning, left.content, left.streamed, left.calls, left.broken)
            == (right.reasoning, right.content, right.streamed, right.calls, right.broken)
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
        add(parser.finish(isCut: isCut), isCut: isCut)
        #expect(open == nil)
    }

    private mutating func add(_ events: [OutputParser.Event], isCut: Bool = false) {
        for event in events {
            switch event {
            case .reasoning(let text): reasoning += text
            case .content(let text):
                content += text
                streamed += text
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
            case .toolCallBroken(_, let text, let rest):
                guard let (name, arguments) = open else { preconditionFailure("a call breaks that did not begin") }
                broken.append("\(name)(\(arguments)")
                if isCut { cut = broken.last }
                content += isCut ? rest : text
                streamed += rest
                open = nil
            }
        }
    }
}

/// `‹x›` in these tests stands for a tag with DeepSeek's mark: `<｜DSML｜x>`. `‹function_calls›` is any model's block.
func marked(_ text: String, _ block: DSMLBlock = .functionCalls) -> String {
    var result = ""
    for character in text {
        switch character {
        case "‹": result += "<｜DSML｜"
        case "›": result += ">"
        default: result.append(character)
        }
    }
    return result.replacing("<｜DSML｜/", with: "</｜DSML｜")
        .replacing("｜DSML｜function_calls", with: "｜DSML｜\(block.rawValue)")
}

/// Returns a call with one parameter.
func param(_ name: String, _ isString: String, _ value: String) -> String {
    "‹invoke name=\"f\"›‹parameter name=\"\(name)\" string=\"\(isString)\"›\(value)‹/parameter›‹/invoke›"
}
