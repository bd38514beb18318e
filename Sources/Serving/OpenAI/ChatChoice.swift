import Inference
import JSON
import Tokenization

/// One choice of a chat completion while it is generated, with reasoning, content and tool calls separated.
struct ChatChoice: Sendable {
    private let index: Int
    private let service: TextService
    private let wantsLogProbs: Bool
    private var output: ChatOutput
    private var logProbs = GrowingJSON.array

    /// The number of tokens up to the end of reasoning.
    var reasoningTokens: Int { output.reasoningTokens }
    private var finish: TextFinish.Reason? { output.finish?.reason }
    private var isCut: Bool { finish?.isCut ?? false }

    /// The reasoning so far, for an answer that is sent whole; so are `content` and `calls`.
    private var reasoning = ""
    private var content = ""
    private var calls: [Call] = []

    private struct Call {
        let id = "call_" + Envelope.randomDigits()
        let name: String
        var arguments = ""
    }

    init(_ request: ChatRequest, index: Int, service: TextService) {
        self.index = index
        self.service = service
        wantsLogProbs = request.wantsLogProbs
        output = ChatOutput(request)
    }

    /// Adds an event, and returns the parts of the output that it completes, in order.
    private mutating func take(_ event: TextEvent) -> [OutputParser.Event] {
        if wantsLogProbs, case .token(let token, _) = event { logProbs.append(service.chatLogProbs(of: token)) }
        return output.take(event)
    }

    // MARK: - Whole

    /// Adds an event to the message of an answer that is sent whole.
    mutating func collect(_ event: TextEvent) {
        for part in take(event) {
            switch part {
            case .reasoning(let text): reasoning += text
            case .content(let text): content += text
            case .toolCallStart(_, let name): calls.append(Call(name: name))
            case .toolCallArguments(_, let text): calls[calls.count - 1].arguments += text
            case .toolCallEnd: break
            case .toolCallBroken(_, let text, let rest):
                // A call that was cut stays a call; one that is broken otherwise becomes content.
                if !isCut { calls.removeLast() }
                content += isCut ? rest : text
            }
        }
    }

    /// The whole choice, as JSON text.
    var whole: [UInt8] {
        var message = [
            JSONMember("role", .string("assistant")),
            JSONMember("content", content.isEmpty && !calls.isEmpty ? .null : .string(content)),
            JSONMember("reasoning_content", reasoning.isEmpty ? .null : .string(reasoning)),
        ]
        if !calls.isEmpty {
            let list = calls.enumerated().map { place, call in
                Self.start(of: call, at: place, arguments: call.arguments)
            }
            message.append(JSONMember("tool_calls", .array(list)))
        }
        return written("message", .object(message), logProbs: wantsLogProbs ? logProbs : nil, finish: finishReason)
    }

    // MARK: - Streamed

    /// The first chunk of a stream, which gives the role.
    var opening: [UInt8] {
        written(
            "delta", .fields(["role": .string("assistant"), "content": .string("")]), logProbs: nil, finish: .null)
    }

    /// Adds an event, and returns the chunks that it makes, as JSON text.
    mutating func feed(_ event: TextEvent) -> [[UInt8]] {
        let hadScores = logProbs.count
        var deltas: [JSONValue] = []
        let parts = take(event)
        for (place, part) in parts.enumerated() {
            switch part {
            case .reasoning(let text): deltas.append(.fields(["reasoning_content": .string(text)]))
            case .content(let text): deltas.append(.fields(["content": .string(text)]))
            case .toolCallStart(let index, let name):
                calls.append(Call(name: name))
                // A call that is complete already is sent in one chunk.
                var arguments = ""
                if case .toolCallArguments(index, let text)? = parts[(place + 1)...].first,
                    case .toolCallEnd? = parts[(place + 2)...].first
                {
                    arguments = text
                }
                deltas.append(Self.delta(Self.start(of: calls[calls.count - 1], at: index, arguments: arguments)))
            case .toolCallArguments(let index, let text):
                if place > 0, place + 1 < parts.count, case .toolCallStart = parts[place - 1],
                    case .toolCallEnd = parts[place + 1]
                {
                    continue
                }
                deltas.append(
                    Self.delta(
                        .fields(["index": .integer(index), "function": .fields(["arguments": .string(text)])])))
            case .toolCallEnd: break
            case .toolCallBroken(_, _, let rest):
                // What was sent of the call is not sent again.
                if !rest.isEmpty { deltas.append(.fields(["content": .string(rest)])) }
            }
        }
        if deltas.isEmpty, logProbs.count > hadScores { deltas.append(.fields([:])) }
        var chunks: [[UInt8]] = []
        for (place, delta) in deltas.enumerated() {
            chunks.append(
                written("delta", delta, logProbs: wantsLogProbs && place == 0 ? logProbs : nil, finish: .null))
        }
        if !deltas.isEmpty { logProbs = .array }
        if finish != nil { chunks.append(written("delta", .fields([:]), logProbs: nil, finish: finishReason)) }
        return chunks
    }

    private static func delta(_ call: JSONValue) -> JSONValue { .fields(["tool_calls": .array([call])]) }

    private static func start(of call: Call, at place: Int, arguments: String) -> JSONValue {
        .fields([
            "index": .integer(place), "id": .string(call.id), "type": .string("function"),
            "function": .fields(["name": .string(call.name), "arguments": .string(arguments)]),
        ])
    }

    private func written(_ name: String, _ part: JSONValue, logProbs: GrowingJSON?, finish: JSONValue) -> [UInt8] {
        var writer = JSONWriter()
        writer.beginObject()
        writer.member("index", .integer(index))
        writer.member(name, part)
        writer.key("logprobs")
        if let logProbs {
            writer.beginObject()
            writer.member("content", logProbs)
            writer.member("refusal", .null)
            writer.endObject()
        } else {
            writer.value(.null)
        }
        writer.member("finish_reason", finish)
        writer.endObject()
        return writer.takeBytes()
    }

    /// The member `finish_reason`. It is `tool_calls` if the model has called tools, since it then waits for results.
    private var finishReason: JSONValue {
        guard let finish else { return .null }
        return .string(output.hasCalled && !finish.isCut ? "tool_calls" : finish.word)
    }
}

extension TextService {
    /// Returns one entry of `logprobs.content`.
    fileprivate func chatLogProbs(of token: TokenLogProbs) -> JSONValue {
        let own = ScoredToken(token: token.token, logProb: token.logProb ?? -.infinity)
        return .object(
            members(of: own) + [JSONMember("top_logprobs", .array(token.top.map { .object(members(of: $0)) }))])
    }

    private func members(of scored: ScoredToken) -> [JSONMember] {
        [
            JSONMember("token", .string(text(of: scored.token))), JSONMember("logprob", .number(scored.logProb)),
            JSONMember("bytes", .array(tokenizer.bytes(of: scored.token).map(JSONValue.integer))),
        ]
    }
}
