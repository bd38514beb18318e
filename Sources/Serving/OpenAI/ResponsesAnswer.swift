import Foundation
import JSON

/// One answer of `/v1/responses` while it is generated: a list of items, each of which is a message, reasoning, or a
/// call of a function. Every event of its stream has a number.
struct ResponsesAnswer: DialectAnswer {
    private let id = "resp_" + Envelope.randomDigits()
    private let created = Int(Date().timeIntervalSince1970)
    private let model: String
    private let echo: [JSONMember]
    private let promptTokens: Int
    private var items: AnswerItems
    private var sequenceNumber = 0
    /// The member `kv_transfer_params`; `nil` for none.
    private let transfer: JSONValue?

    init(_ request: ChatRequest, _ fields: ResponsesFields, model: String, _ transfers: TransferService?) {
        self.model = model
        echo = fields.echo
        promptTokens = request.requests.first?.prompt.count ?? 0
        items = AnswerItems(request)
        transfer = transfers?.answer(to: request.requests.first?.transferParams, id: id)
    }

    // MARK: - Whole

    mutating func collect(_ event: TextEvent) {
        _ = items.take(event)
    }

    var whole: [UInt8] { response(status).pythonBytes }

    // MARK: - Streamed

    mutating func begin() -> [StreamEvent] {
        ["response.created", "response.in_progress"].map { event($0, ["response": response("in_progress")]) }
    }

    mutating func feed(_ event: TextEvent) -> [StreamEvent] {
        var events: [StreamEvent] = []
        for change in items.take(event) {
            switch change {
            case .opened(let index): events += opened(index)
            case .grew(let index, let text):
                let item = items.items[index]
                events.append(
                    self.event(Self.names(item.kind).delta, place(index) + [("delta", .string(text))] + scores(item)))
            case .closed(let index): events += closed(index)
            }
        }
        if items.output.finish != nil {
            let status = status
            // No event says that a response was cancelled.
            let name = status == "cancelled" ? "incomplete" : status
            events.append(self.event("response.\(name)", ["response": response(status)]))
        }
        return events
    }

    mutating func failure(_ error: RequestError) -> StreamEvent {
        event(
            "response.failed",
            [
                "response": response(
                    "failed", error: .fields(["code": .string("server_error"), "message": .string(error.message)]))
            ])
    }

    private mutating func opened(_ index: Int) -> [StreamEvent] {
        let item = items.items[index]
        var events = [
            event(
                "response.output_item.added",
                [("output_index", .integer(index)), ("item", Self.json(item, status: "in_progress", isEmpty: true))])
        ]
        if let part = Self.part(item, text: "") {
            events.append(event("response.content_part.added", place(index) + [("part", part)]))
        }
        return events
    }

    private mutating func closed(_ index: Int) -> [StreamEvent] {
        let item = items.items[index]
        let names = Self.names(item.kind)
        var members = place(index) + [(names.member, JSONValue.string(item.text))] + scores(item)
        if case .call(let name) = item.kind { members.append(("name", .string(name))) }
        var events = [event(names.done, members)]
        if let part = Self.part(item, text: item.text) {
            events.append(event("response.content_part.done", place(index) + [("part", part)]))
        }
        events.append(
            event(
                "response.output_item.done",
                [("output_index", .integer(index)), ("item", Self.json(item, status: Self.status(item)))]))
        return events
    }

    private mutating func event(_ name: String, _ members: KeyValuePairs<String, JSONValue>) -> StreamEvent {
        event(name, members.map { ($0.key, $0.value) })
    }

    private mutating func event(_ name: String, _ members: [(String, JSONValue)]) -> StreamEvent {
        defer { sequenceNumber += 1 }
        let all = [("type", .string(name)), ("sequence_number", .integer(sequenceNumber))] + members
        return (name, JSONValue.object(all.map { JSONMember($0.0, $0.1) }).pythonBytes)
    }

    /// The names of the events of an item's text, and of the member that has the whole text.
    private static func names(_ kind: AnswerItems.Kind) -> (delta: String, done: String, member: String) {
        switch kind {
        case .text: ("response.output_text.delta", "response.output_text.done", "text")
        case .reasoning: ("response.reasoning_text.delta", "response.reasoning_text.done", "text")
        case .call:
            ("response.function_call_arguments.delta", "response.function_call_arguments.done", "arguments")
        }
    }

    /// Returns the members that say to which item an event belongs.
    private func place(_ index: Int) -> [(String, JSONValue)] {
        let item = items.items[index]
        let members: [(String, JSONValue)] = [("item_id", .string(Self.id(item))), ("output_index", .integer(index))]
        if case .call = item.kind { return members }
        return members + [("content_index", .integer(0))]
    }

    /// Returns the member that events of texts have for log-probabilities, which this route does not show.
    private func scores(_ item: AnswerItems.Item) -> [(String, JSONValue)] {
        item.kind == .text ? [("logprobs", .array([]))] : []
    }

    // MARK: - Parts

    /// Returns the whole response.
    private func response(_ status: String, error: JSONValue = .null) -> JSONValue {
        let isOver = items.output.finish != nil
        let items = items.items.map { Self.json($0, status: Self.status($0)) }
        let reason: JSONValue =
            status == "incomplete" ? .fields(["reason": .string("max_output_tokens")]) : .null
        return .object(
            JSONMember.list([
                "id": .string(id), "object": .string("response"), "created_at": .integer(created),
                "status": .string(status), "error": error, "incomplete_details": reason, "model": .string(model),
                "output": .array(items),
            ]) + echo + [JSONMember("usage", isOver ? usage : .null)]
                + (transfer.map { [JSONMember(KVTransferParams.name, $0)] } ?? []))
    }

    private var status: String {
        switch items.output.finish?.reason {
        case .length?: "incomplete"
        case .abort?: "cancelled"
        default: "completed"
        }
    }

    private static func status(_ item: AnswerItems.Item) -> String { item.isComplete ? "completed" : "incomplete" }

    private static func id(_ item: AnswerItems.Item) -> String {
        switch item.kind {
        case .text: "msg_" + item.id
        case .reasoning: "rs_" + item.id
        case .call: "fc_" + item.id
        }
    }

    /// Returns an item as JSON.
    ///
    /// - Parameter isEmpty: whether the item has just begun, so that it is shown without its text.
    private static func json(_ item: AnswerItems.Item, status: String, isEmpty: Bool = false) -> JSONValue {
        let content = JSONValue.array(isEmpty ? [] : part(item, text: item.text).map { [$0] } ?? [])
        return switch item.kind {
        case .text:
            .fields([
                "id": .string(id(item)), "type": .string("message"), "status": .string(status),
                "role": .string("assistant"), "content": content,
            ])
        case .reasoning:
            .fields([
                "id": .string(id(item)), "type": .string("reasoning"), "status": .string(status),
                "summary": .array([]), "content": content, "encrypted_content": .null,
            ])
        case .call(let name):
            .fields([
                "id": .string(id(item)), "type": .string("function_call"), "status": .string(status),
                "call_id": .string("call_" + item.id), "name": .string(name),
                "arguments": .string(isEmpty ? "" : item.text),
            ])
        }
    }

    /// Returns the content part of a message or of reasoning; `nil` for a call.
    private static func part(_ item: AnswerItems.Item, text: String) -> JSONValue? {
        switch item.kind {
        case .text:
            .fields([
                "type": .string("output_text"), "text": .string(text), "annotations": .array([]),
                "logprobs": .array([]),
            ])
        case .reasoning: .fields(["type": .string("reasoning_text"), "text": .string(text)])
        case .call: nil
        }
    }

    private var usage: JSONValue {
        let (finish, reasoning) = (items.output.finish, items.output.reasoningTokens)
        let output = finish?.completionTokens ?? 0
        return .fields([
            "input_tokens": .integer(promptTokens),
            "input_tokens_details": .fields(["cached_tokens": .integer(finish?.cachedTokens ?? 0)]),
            "output_tokens": .integer(output),
            "output_tokens_details": .fields(["reasoning_tokens": .integer(reasoning)]),
            "total_tokens": .integer(promptTokens + output),
        ])
    }
}
