import JSON

/// One answer of `/v1/messages` while it is generated, in Anthropic's form: a list of blocks, each of which is a text,
/// reasoning, or a call of a tool.
struct MessagesAnswer: DialectAnswer {
    private let id = "msg_" + Envelope.randomDigits()
    private let model: String
    private let promptTokens: Int
    private let showsThinking: Bool
    private var items: AnswerItems

    /// - Parameter showsThinking: whether blocks of reasoning have their text.
    init(_ request: ChatRequest, model: String, showsThinking: Bool) {
        self.model = model
        self.showsThinking = showsThinking
        promptTokens = request.requests.first?.prompt.count ?? 0
        items = AnswerItems(request)
    }

    // MARK: - Whole

    mutating func collect(_ event: TextEvent) {
        _ = items.take(event)
    }

    var whole: [UInt8] {
        message(content: items.items.map(block), stop: stop, usage: usage).pythonBytes
    }

    // MARK: - Streamed

    func begin() -> [StreamEvent] {
        let usage = JSONValue.fields([
            "input_tokens": .integer(promptTokens), "cache_creation_input_tokens": .integer(0),
            "cache_read_input_tokens": .integer(0), "output_tokens": .integer(0),
        ])
        let stop: KeyValuePairs<String, JSONValue> = ["stop_reason": .null, "stop_sequence": .null]
        return [Self.event("message_start", ["message": message(content: [], stop: stop, usage: usage)])]
    }

    func failure(_ error: RequestError) -> StreamEvent { ("error", error.anthropicJSON.pythonBytes) }

    mutating func feed(_ event: TextEvent) -> [StreamEvent] {
        var events = items.take(event).compactMap { change -> StreamEvent? in
            switch change {
            case .opened(let index):
                return Self.event(
                    "content_block_start",
                    ["index": .integer(index), "content_block": Self.emptyBlock(items.items[index])])
            case .grew(let index, _) where items.items[index].kind == .reasoning && !showsThinking: return nil
            case .grew(let index, let text):
                return Self.event(
                    "content_block_delta",
                    ["index": .integer(index), "delta": Self.delta(text, of: items.items[index].kind)])
            case .closed(let index): return Self.event("content_block_stop", ["index": .integer(index)])
            }
        }
        if items.output.finish != nil {
            events.append(Self.event("message_delta", ["delta": .fields(stop), "usage": usage]))
            events.append(Self.event("message_stop", [:]))
        }
        return events
    }

    private static func event(_ name: String, _ members: KeyValuePairs<String, JSONValue>) -> StreamEvent {
        (name, JSONValue.object([JSONMember("type", .string(name))] + JSONMember.list(members)).pythonBytes)
    }

    private static func delta(_ text: String, of kind: AnswerItems.Kind) -> JSONValue {
        switch kind {
        case .text: .fields(["type": .string("text_delta"), "text": .string(text)])
        case .reasoning: .fields(["type": .string("thinking_delta"), "thinking": .string(text)])
        case .call: .fields(["type": .string("input_json_delta"), "partial_json": .string(text)])
        }
    }

    // MARK: - Parts

    private func message(
        content: [JSONValue], stop: KeyValuePairs<String, JSONValue>, usage: JSONValue
    ) -> JSONValue {
        .object(
            JSONMember.list([
                "id": .string(id), "type": .string("message"), "role": .string("assistant"), "model": .string(model),
                "content": .array(content),
            ]) + JSONMember.list(stop) + [JSONMember("usage", usage)])
    }

    private static func emptyBlock(_ item: AnswerItems.Item) -> JSONValue {
        block(item, text: "", input: .fields([:]))
    }

    private func block(_ item: AnswerItems.Item) -> JSONValue {
        let text = item.kind == .reasoning && !showsThinking ? "" : item.text
        // Arguments that were cut are no JSON, and a block has no form for them.
        return Self.block(item, text: text, input: (try? JSONValue(parsing: item.text)) ?? .fields([:]))
    }

    private static func block(_ item: AnswerItems.Item, text: String, input: @autoclosure () -> JSONValue) -> JSONValue
    {
        switch item.kind {
        case .text: .fields(["type": .string("text"), "text": .string(text)])
        // Signatures are not checked here; clients expect the member.
        case .reasoning: .fields(["type": .string("thinking"), "thinking": .string(text), "signature": .string("")])
        case .call(let name):
            .fields([
                "type": .string("tool_use"), "id": .string("toolu_" + item.id), "name": .string(name), "input": input(),
            ])
        }
    }

    /// The reason why the answer ended.
    private var stop: KeyValuePairs<String, JSONValue> {
        switch items.output.finish?.reason {
        // Anthropic has no word for an abort; of its words only this one says that the answer is cut.
        case .length?, .abort?: ["stop_reason": .string("max_tokens"), "stop_sequence": .null]
        case _ where items.output.hasCalled: ["stop_reason": .string("tool_use"), "stop_sequence": .null]
        case .stopString(let text)?: ["stop_reason": .string("stop_sequence"), "stop_sequence": .string(text)]
        default: ["stop_reason": .string("end_turn"), "stop_sequence": .null]
        }
    }

    /// The token counts. Anthropic does not count cached tokens as input.
    private var usage: JSONValue {
        let cached = items.output.finish?.cachedTokens ?? 0
        return .fields([
            "input_tokens": .integer(promptTokens - min(cached, promptTokens)),
            "cache_creation_input_tokens": .integer(0), "cache_read_input_tokens": .integer(cached),
            "output_tokens": .integer(items.output.finish?.completionTokens ?? 0),
        ])
    }
}

extension RequestError {
    /// The error in Anthropic's form.
    var anthropicJSON: JSONValue {
        let type =
            switch kind {
            case .unauthorized: "authentication_error"
            case .forbidden: "permission_error"
            case .notFound, .methodNotAllowed: "not_found_error"
            case .tooLarge: "request_too_large"
            case .overloaded: "rate_limit_error"
            case .unavailable: "overloaded_error"
            case .failed: "api_error"
            case .timeout: "timeout_error"
            case .invalid, .unsupportedMediaType, .clientGone: "invalid_request_error"
            }
        var text = message
        // Clients search for these words at the beginning.
        if code == Self.contextExceededCode, let place = text.firstRange(of: Self.promptTooLong) {
            text = String(text[place.lowerBound...])
        }
        var members = JSONMember.list(["type": .string(type), "message": .string(text)])
        // Anthropic's client begins with a thread where it can, and goes on without one if it reads this.
        if parameter == Self.threadParameter {
            members.append(
                JSONMember(
                    "details",
                    .fields([
                        "error_code": .string("thread_unsupported_request"),
                        "unsupported": .array([.string(Self.threadParameter)]),
                    ])))
        }
        return .fields(["type": .string("error"), "error": .object(members)])
    }

    /// The member of Anthropic's requests by which the server keeps messages from one request to the next.
    private static let threadParameter = "thread"
}
