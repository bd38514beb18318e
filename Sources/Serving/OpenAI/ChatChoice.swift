import Inference
import JSON
import Tokenization

/// One choice of a chat completion as it grows: reasoning, content and tool calls told apart.
struct ChatChoice: Sendable {
    private let index: Int
    private let service: TextService
    private let wantsLogProbs: Bool
    private let allowsParallelCalls: Bool
    private var parser: OutputParser
    private var reasoning = ""
    private var content = ""
    private var calls: [JSONValue] = []
    private var logProbs: [JSONValue] = []
    private var finish: TextFinish.Reason?
    private var hasCalled = false

    init(_ request: ChatRequest, index: Int, service: TextService) {
        self.index = index
        self.service = service
        wantsLogProbs = request.wantsLogProbs
        allowsParallelCalls = request.allowsParallelCalls
        parser = OutputParser(startsInReasoning: request.startsInReasoning, parsesToolCalls: request.offersTools)
    }

    /// Takes an event in.
    mutating func collect(_ event: TextEvent) {
        switch event {
        case .token(let token, let text):
            if wantsLogProbs { logProbs.append(service.chatLogProbs(of: token)) }
            for event in parser.feed(text) { collect(event) }
        case .finished(let end):
            for event in parser.feed(end.text) + parser.finish() { collect(event) }
            finish = end.reason
        case .promptScores, .failed: break
        }
    }

    private mutating func collect(_ event: OutputParser.Event) {
        switch event {
        case .reasoning(let text): reasoning += text
        case .content(let text): content += text
        case .toolCall(let place, let name, let arguments):
            guard allowsParallelCalls || place == 0 else { return }
            hasCalled = true
            calls.append(
                .fields([
                    "index": .integer(place), "id": .string("call_" + Envelope.randomDigits()),
                    "type": .string("function"),
                    "function": .fields(["name": .string(name), "arguments": .string(arguments)]),
                ]))
        }
    }

    /// The first chunk of a stream: who speaks.
    var opening: JSONValue {
        chunk(.fields(["role": .string("assistant"), "content": .string("")]), logProbs: .null, finish: .null)
    }

    /// Takes an event in and gives out what is new, in the order of a message: reasoning, content, tool calls.
    mutating func feed(_ event: TextEvent) -> [JSONValue] {
        collect(event)
        var deltas: [JSONValue] = []
        if !reasoning.isEmpty { deltas.append(.fields(["reasoning_content": .string(reasoning)])) }
        if !content.isEmpty { deltas.append(.fields(["content": .string(content)])) }
        if !calls.isEmpty { deltas.append(.fields(["tool_calls": .array(calls)])) }
        if deltas.isEmpty, !logProbs.isEmpty { deltas.append(.fields([:])) }
        var chunks = deltas.enumerated().map { place, delta in
            chunk(delta, logProbs: place == 0 ? logProbsJSON : .null, finish: .null)
        }
        if finish != nil { chunks.append(chunk(.fields([:]), logProbs: .null, finish: finishReason)) }
        (reasoning, content, calls, logProbs) = ("", "", [], [])
        return chunks
    }

    private func chunk(_ delta: JSONValue, logProbs: JSONValue, finish: JSONValue) -> JSONValue {
        .fields(["index": .integer(index), "delta": delta, "logprobs": logProbs, "finish_reason": finish])
    }

    /// The whole choice.
    var whole: JSONValue {
        var message = [
            JSONMember("role", .string("assistant")),
            JSONMember("content", content.isEmpty && !calls.isEmpty ? .null : .string(content)),
            JSONMember("reasoning_content", reasoning.isEmpty ? .null : .string(reasoning)),
        ]
        if !calls.isEmpty { message.append(JSONMember("tool_calls", .array(calls))) }
        return .fields([
            "index": .integer(index), "message": .object(message), "logprobs": logProbsJSON,
            "finish_reason": finishReason,
        ])
    }

    private var logProbsJSON: JSONValue {
        wantsLogProbs ? .fields(["content": .array(logProbs), "refusal": .null]) : .null
    }

    /// A model that stops after calling tools waits for their results.
    private var finishReason: JSONValue {
        guard let finish else { return .null }
        return .string(hasCalled && finish != .length ? "tool_calls" : finish.word)
    }
}

extension TextService {
    /// One entry of `logprobs.content`.
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
