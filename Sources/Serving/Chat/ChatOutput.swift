import Inference
import Tokenization

/// Separates one answer into reasoning, content and tool calls while it is generated. Each dialect of the chat route
/// writes these in its own form.
struct ChatOutput: Sendable {
    private var parser: OutputParser
    private let allowsParallelCalls: Bool
    /// The call that an answer with a single call shows; `nil` before it begins.
    private var keptCall: Int?
    /// The reason why the answer ended; `nil` while it is generated.
    private(set) var finish: TextFinish?
    /// True if at least one tool call is complete.
    private(set) var hasCalled = false
    /// The number of tokens up to the end of reasoning.
    private(set) var reasoningTokens = 0

    init(_ request: ChatRequest) {
        allowsParallelCalls = request.allowsParallelCalls
        parser = OutputParser(
            startsInReasoning: request.startsInReasoning, parsesReasoning: request.separatesReasoning,
            toolCalls: request.toolCalls)
    }

    /// Adds an event, and returns the parts of the output that it completes, in order.
    mutating func take(_ event: TextEvent) -> [OutputParser.Event] {
        var parts: [OutputParser.Event] = []
        switch event {
        case .token(_, let text):
            parts = parser.feed(text)
            if parser.isInReasoning || parts.contains(where: { if case .reasoning = $0 { true } else { false } }) {
                reasoningTokens += 1
            }
        case .finished(let end):
            finish = end
            parts = parser.feed(end.text) + parser.finish(isCut: end.reason.isCut)
        case .started, .promptScores, .waiting, .failed: break
        }
        if !allowsParallelCalls { parts = parts.compactMap { oneCall($0) } }
        for case .toolCallEnd in parts { hasCalled = true }
        return parts
    }

    /// Returns a part as an answer with a single call has it: the first call that is not broken is kept, and later ones
    /// are left out.
    private mutating func oneCall(_ part: OutputParser.Event) -> OutputParser.Event? {
        switch part {
        case .toolCallStart(let place, _):
            keptCall = keptCall ?? place
            return keptCall == place ? part : nil
        case .toolCallArguments(let place, _), .toolCallEnd(let place): return keptCall == place ? part : nil
        case .toolCallBroken(let place, let text, _):
            if let keptCall, keptCall != place { return finish?.reason.isCut == true ? nil : .content(text) }
            keptCall = nil
            return part
        case .reasoning, .content: return part
        }
    }
}

/// The reasoning, texts and tool calls of one answer as a list of items in the order in which the model wrote them,
/// which is how Anthropic's messages and OpenAI's responses show an answer.
struct AnswerItems: Sendable {
    enum Kind: Sendable, Equatable {
        case reasoning
        case text
        case call(name: String)
    }

    struct Item: Sendable {
        let kind: Kind
        /// 32 random hexadecimal digits, from which dialects make the item's ids.
        let id = Envelope.randomDigits()
        /// The text so far; the arguments, as the text of a JSON object, if the item is a call.
        var text = ""
        /// True if the item is complete. A limit or an abort may cut it, and the model may leave a call unfinished.
        var isComplete = false
    }

    /// A change of the list by an event. Items are named by their index.
    enum Change: Sendable, Equatable {
        case opened(Int)
        case grew(Int, String)
        /// The item will not change any more.
        case closed(Int)
    }

    private(set) var output: ChatOutput
    private(set) var items: [Item] = []
    private var openItem: Int?
    private let isStreamed: Bool

    init(_ request: ChatRequest) {
        output = ChatOutput(request)
        isStreamed = request.isStreamed
    }

    /// Adds an event, and returns the changes that it makes, in order.
    mutating func take(_ event: TextEvent) -> [Change] {
        var changes: [Change] = []
        for part in output.take(event) {
            switch part {
            case .reasoning(let text): write(text, .reasoning, &changes)
            case .content(let text): write(text, .text, &changes)
            case .toolCallStart(_, let name): open(.call(name: name), &changes)
            case .toolCallArguments(_, let text): grow(by: text, &changes)
            case .toolCallEnd: close(isComplete: true, &changes)
            case .toolCallBroken(_, let text, let rest):
                // A call that was cut stays a call; one that is broken otherwise becomes text. What was sent of it cannot
                // be taken back, and is not sent again.
                close(isComplete: false, &changes)
                let isKept = isStreamed || output.finish?.reason.isCut == true
                if !isKept {
                    // The text goes on in the item before.
                    items.removeLast()
                    openItem = items.indices.last
                }
                write(isKept ? rest : text, .text, &changes)
            }
        }
        if let finish = output.finish { close(isComplete: !finish.reason.isCut, &changes) }
        return changes
    }

    private mutating func write(_ text: String, _ kind: Kind, _ changes: inout [Change]) {
        guard !text.isEmpty else { return }
        if openItem.map({ items[$0].kind }) != kind { open(kind, &changes) }
        grow(by: text, &changes)
    }

    private mutating func open(_ kind: Kind, _ changes: inout [Change]) {
        close(isComplete: true, &changes)
        items.append(Item(kind: kind))
        openItem = items.count - 1
        changes.append(.opened(items.count - 1))
    }

    private mutating func grow(by text: String, _ changes: inout [Change]) {
        guard let openItem, !text.isEmpty else { return }
        items[openItem].text += text
        changes.append(.grew(openItem, text))
    }

    private mutating func close(isComplete: Bool, _ changes: inout [Change]) {
        guard let index = openItem else { return }
        items[index].isComplete = isComplete
        openItem = nil
        changes.append(.closed(index))
    }
}
