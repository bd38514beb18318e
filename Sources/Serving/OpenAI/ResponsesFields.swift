import Inference
import JSON
import Tokenization

/// The members of a request to `/v1/responses`.
struct ResponsesFields: Sendable {
    /// The members of the request that the answer repeats.
    let echo: [JSONMember]

    private init(echo: [JSONMember]) { self.echo = echo }

    /// Reads a request.
    static func read(
        _ fields: RequestFields, service: TextService, configuration: ServerConfiguration
    ) throws(RequestError) -> (ChatRequest, ResponsesFields) {
        try fields.checkModel(configuration.modelNames)
        try FieldTable.check(fields, at: .responses)
        if let options = try fields.object("stream_options") { try FieldTable.check(options, at: .streamOptions) }
        if let options = try fields.object("reasoning") { try FieldTable.check(options, at: .responsesReasoning) }
        var conversation = Conversation(messages: try ResponsesInput.messages(fields), messagesName: "input")
        if let text = try fields.string("instructions") {
            conversation.messages.insert(Conversation.Message(ChatMessage(.system, text), at: "instructions"), at: 0)
        }
        conversation.tools = try tools(fields)
        conversation.toolChoice = try toolChoice(fields)
        conversation.allowsParallelCalls = try fields.bool("parallel_tool_calls") ?? true
        (conversation.thinking, conversation.thinkingField) = try ChatFields.thinking(fields)
        conversation.keepsReasoning = try ChatFields.keepsReasoning(fields)
        conversation.effort = try ChatFields.effort(fields)
        try checkIncluded(fields)
        var sampling = try SamplingFields(
            fields, names: .responses, minMaxTokens: 1, defaultMaxTokens: nil, service: service,
            limits: configuration.requests)
        let text = try fields.object("text")
        if let text { try FieldTable.check(text, at: .responsesText) }
        sampling.form = try text?.object("format")?.answerForm(describedAt: "text.format")
        try checkEchoed(fields)
        let isStreamed = try fields.bool("stream") ?? false
        let options = ChatRequest.Options(
            sampling: sampling, cacheSalt: try fields.cacheSalt(atMost: configuration.requests.maxCacheSaltBytes),
            id: try fields.requestID(),
            transferParams: try service.transferParams(of: fields, isStreamed: isStreamed), isStreamed: isStreamed)
        let request = try ChatRequest(conversation, options, service: service)
        return (request, ResponsesFields(echo: echo(fields, sampling, conversation)))
    }

    /// Checks `include`, which names parts that answers do not show by themselves. No answer here has any of those that
    /// are accepted: they belong to tools that OpenAI runs, or to reasoning that is not shown.
    private static func checkIncluded(_ fields: RequestFields) throws(RequestError) {
        for (index, value) in (try fields.array("include") ?? []).enumerated() {
            let path = "include[\(index)]"
            if value == .string("message.output_text.logprobs") {
                throw .invalid(
                    "include", "\(path): this route has no log-probabilities; use /v1/chat/completions",
                    code: "unsupported_parameter")
            }
            guard let name = value.string, includable.contains(name) else {
                let found = (value.string ?? value.kindName).quotedForMessage
                throw .invalid(
                    "include", "\(path) is \(found); legal are \(includable.joined(separator: ", "))")
            }
        }
    }

    private static let includable = [
        "reasoning.encrypted_content", "web_search_call.results", "web_search_call.action.sources",
        "file_search_call.results", "code_interpreter_call.outputs", "computer_call_output.output.image_url",
        "message.input_image.image_url",
    ]

    /// Bounds the members that have no other use than to be repeated, as OpenAI does.
    private static func checkEchoed(_ fields: RequestFields) throws(RequestError) {
        if let user = try fields.string("user"), user.utf8.count > 512 {
            throw .invalid("user", "user has \(user.utf8.count) bytes; at most 512 are allowed")
        }
        guard let metadata = try fields.object("metadata") else { return }
        guard metadata.names.count <= 16 else {
            throw .invalid("metadata", "metadata has \(metadata.names.count) members; at most 16 are allowed")
        }
        for name in metadata.names {
            guard let text = try metadata.string(name) else { continue }
            guard name.utf8.count <= 256, text.utf8.count <= 2048 else {
                throw .invalid("metadata", "metadata: names have at most 64 characters, and texts 512")
            }
        }
    }

    /// Returns the members that an answer repeats, with their defaults.
    private static func echo(
        _ fields: RequestFields, _ sampling: SamplingFields, _ conversation: Conversation
    ) -> [JSONMember] {
        func given(_ name: String, or value: JSONValue = .null) -> JSONValue { fields.value(name) ?? value }
        let textDefault = JSONValue.fields(["format": .fields(["type": .string("text")])])
        let text = fields.value("text").flatMap { $0["format"] == nil ? nil : $0 }
        let effort = fields.value("reasoning")?["effort"] ?? .null
        return JSONMember.list([
            "background": .bool(false), "instructions": given("instructions"),
            "max_output_tokens": given("max_output_tokens"), "max_tool_calls": .null,
            "metadata": given("metadata", or: .fields([:])),
            "parallel_tool_calls": .bool(conversation.allowsParallelCalls), "previous_response_id": .null,
            "reasoning": .fields(["effort": effort, "summary": .null]), "service_tier": .string("default"),
            // Nothing is stored, whatever the request says.
            "store": .bool(false), "temperature": given("temperature", or: .setting(sampling.sampling.temperature)),
            "text": text ?? textDefault, "tool_choice": given("tool_choice", or: .string("auto")),
            "tools": given("tools", or: .array([])), "top_p": given("top_p", or: .setting(sampling.sampling.topP)),
            "truncation": .string("disabled"), "user": given("user"),
        ])
    }

    /// Returns the functions. Tools that OpenAI itself runs do not exist here.
    private static func tools(_ fields: RequestFields) throws(RequestError) -> [ChatTool] {
        var tools: [ChatTool] = []
        for (index, value) in (try fields.array("tools") ?? []).enumerated() {
            let path = "tools[\(index)]"
            let tool = try RequestFields(value, path: path)
            let type = try tool.string("type")
            guard type == "function" else {
                throw .invalid(
                    "\(path).type", "\(path).type is '\((type ?? "").prefix(64))'; only functions are supported",
                    code: "unsupported_parameter")
            }
            tools.append(try ChatTool(.object(tool.members.filter { $0.key != "type" && !$0.value.isNull }), at: path))
        }
        return tools
    }

    /// Returns `tool_choice`: a word, or `{"type": "function", "name": …}`.
    private static func toolChoice(_ fields: RequestFields) throws(RequestError) -> ToolChoice {
        guard let choice = fields.value("tool_choice") else { return .auto }
        if let word = choice.string.flatMap(ToolChoice.init(word:)) { return word }
        guard choice["type"]?.string == "function", let name = choice["name"]?.string else {
            throw .invalid(
                "tool_choice",
                "tool_choice must be \"none\", \"auto\", \"required\" or {\"type\": \"function\", \"name\": …}")
        }
        return .named(name)
    }
}

/// Reads `input` of `/v1/responses`: a text, or a list of messages, reasoning, calls of functions and their results.
struct ResponsesInput {
    private var messages: [Conversation.Message] = []
    /// True if the last message is an assistant's turn to which further items may belong.
    private var isInTurn = false

    static func messages(_ fields: RequestFields) throws(RequestError) -> [Conversation.Message] {
        guard let value = fields.value("input") else {
            throw .invalid("input", "input is missing; give a text or a list of items")
        }
        if let text = value.string { return [Conversation.Message(ChatMessage(.user, text), at: "input")] }
        guard let items = value.array, !items.isEmpty else {
            throw .invalid("input", "input must be a text or a list of at least one item")
        }
        var input = ResponsesInput()
        for (index, item) in items.enumerated() {
            let path = "input[\(index)]"
            try input.add(try RequestFields(item, path: path), path)
        }
        return input.messages
    }

    private mutating func add(_ item: RequestFields, _ path: String) throws(RequestError) {
        try FieldTable.check(item, at: .responsesItem)
        switch try item.string("type") ?? "message" {
        case "message": try addMessage(item, path)
        case "reasoning":
            var parts = try item.array("content")
            if parts?.isEmpty ?? true { parts = try item.array("summary") }
            let text = (parts ?? []).compactMap { $0["text"]?.string }.joined()
            changeTurn(path) {
                if $0.reasoning != nil || !$0.content.isEmpty || !$0.toolCalls.isEmpty { return false }
                $0.reasoning = text
                return true
            }
        case "function_call":
            let call = ChatToolCall(
                id: try item.string("call_id"), name: try item.requiredString("name"),
                arguments: try item.string("arguments") ?? "")
            changeTurn(path) {
                $0.toolCalls.append(call)
                return true
            }
        case "function_call_output":
            let output = try ContentParts.text(item, "output") ?? ""
            messages.append(
                Conversation.Message(
                    ChatMessage(.tool, output, toolCallID: try item.requiredString("call_id")), at: path))
            isInTurn = false
        case let type:
            let name = item.path(of: "type")
            throw .invalid(
                name,
                "\(name) is '\(type.prefix(64))', which is not supported; give the conversation as messages, "
                    + "function_call and function_call_output", code: "unsupported_content")
        }
    }

    private mutating func addMessage(_ item: RequestFields, _ path: String) throws(RequestError) {
        let name = try item.string("role")
        guard let role = name.flatMap(ChatMessage.Role.init(rawValue:)), role != .tool else {
            let path = item.path(of: "role")
            throw .invalid(path, "\(path) must be user, assistant, system or developer")
        }
        guard let text = try ContentParts.text(item, "content") else {
            throw .invalid(item.path(of: "content"), "\(item.path(of: "content")) is missing")
        }
        guard role == .assistant else {
            messages.append(Conversation.Message(ChatMessage(role, text), at: path))
            isInTurn = false
            return
        }
        changeTurn(path) {
            if !$0.content.isEmpty || !$0.toolCalls.isEmpty { return false }
            $0.content = text
            return true
        }
    }

    /// Changes the assistant's turn that the list is in, or begins one.
    ///
    /// - Parameter change: changes a turn; it returns false, and changes nothing, if the item belongs to a new turn.
    private mutating func changeTurn(_ path: String, _ change: (inout ChatMessage) -> Bool) {
        if isInTurn, change(&messages[messages.count - 1].message) { return }
        messages.append(Conversation.Message(ChatMessage(.assistant, ""), at: path))
        isInTurn = true
        _ = change(&messages[messages.count - 1].message)
    }
}
