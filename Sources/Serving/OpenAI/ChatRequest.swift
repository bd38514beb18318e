import Grammar
import Inference
import JSON
import Tokenization

/// The members of a request to `/v1/chat/completions`.
struct ChatFields {
    let conversation: Conversation
    let options: ChatRequest.Options
    let stream: StreamFields

    init(_ fields: RequestFields, service: TextService, configuration: ServerConfiguration) throws(RequestError) {
        try fields.checkModel(configuration.modelNames)
        try FieldTable.check(fields, at: .chat)
        stream = try StreamFields(fields)
        let wantsLogProbs = try fields.bool("logprobs") ?? false
        let topCount = try fields.topLogProbs("top_logprobs", service: service, limits: configuration.requests)
        guard wantsLogProbs || topCount ?? 0 == 0 else {
            throw .invalid("top_logprobs", "top_logprobs is only allowed with \"logprobs\": true")
        }
        let sampling = try SamplingFields(
            fields, names: .openAI, minMaxTokens: 1, defaultMaxTokens: nil, service: service,
            limits: configuration.requests)
        options = ChatRequest.Options(
            sampling: sampling,
            logProbs: wantsLogProbs ? LogProbOptions(topCount: topCount ?? 0) : nil,
            separatesReasoning: try fields.bool("separate_reasoning") ?? true,
            cacheSalt: try fields.cacheSalt(atMost: configuration.requests.maxCacheSaltBytes),
            id: try fields.requestID(), bootstraps: try service.bootstraps(of: fields, count: sampling.choices),
            transferParams: try service.transferParams(of: fields, isStreamed: stream.isOn), isStreamed: stream.isOn)
        conversation = try Self.conversation(fields)
    }

    /// Reads those members that make the prompt, which `/tokenize` has too.
    static func conversation(_ fields: RequestFields) throws(RequestError) -> Conversation {
        var messages = try ChatMessageFields.messages(fields)
        // SGLang's clients name the task of the last message beside the messages.
        if let task = try ChatMessageFields.task(fields),
            let last = messages.lastIndex(where: { $0.role == .user || $0.role == .developer })
        {
            messages[last].task = task
        }
        var conversation = Conversation(
            messages: messages.enumerated().map { Conversation.Message($1, at: "messages[\($0)]") })
        (conversation.thinking, conversation.thinkingField) = try thinking(fields)
        conversation.keepsReasoning = try keepsReasoning(fields)
        conversation.effort = try effort(fields)
        let hasPrefix = try ChatMessageFields.continuesLast(fields)
        conversation.continuesFinalMessage = try fields.bool("continue_final_message") ?? false || hasPrefix
        // vLLM's clients have to say both.
        let addsMark = try fields.bool("add_generation_prompt") ?? true
        guard addsMark || conversation.continuesFinalMessage else {
            throw .invalid(
                "add_generation_prompt",
                "add_generation_prompt is not supported: use continue_final_message, or /v1/completions with a whole "
                    + "prompt", code: "unsupported_parameter")
        }
        conversation.tools = try tools(fields)
        conversation.toolChoice = try toolChoice(fields)
        conversation.allowsParallelCalls = try fields.bool("parallel_tool_calls") ?? true
        return conversation
    }

    /// Returns whether the model is to reason: DeepSeek's own switch is `thinking`, SGLang and vLLM pass on those of
    /// the chat template in `chat_template_kwargs`. The member that says so is returned too. Both are
    /// `nil` if the request has none of them.
    static func thinking(_ fields: RequestFields) throws(RequestError) -> (isOn: Bool?, field: String?) {
        var answers: [(path: String, isOn: Bool)] = []
        if let value = fields.value("thinking") {
            let path = fields.path(of: "thinking")
            if value.object != nil { try FieldTable.check(RequestFields(value, path: path), at: .thinking) }
            let type = value["type"]?.string
            guard let isOn = value.bool ?? (type == "enabled" ? true : type == "disabled" ? false : nil) else {
                throw .invalid("thinking", "thinking must be {\"type\": \"enabled\"} or {\"type\": \"disabled\"}")
            }
            answers.append(("thinking", isOn))
        }
        if let isOn = try fields.bool("enable_thinking") { answers.append(("enable_thinking", isOn)) }
        if let options = try fields.object("chat_template_kwargs") {
            for name in options.names {
                let path = options.path(of: name)
                if name == "reasoning_effort" || name == "clear_thinking" { continue }
                guard name == "thinking" || name == "enable_thinking" else {
                    throw .invalid(
                        path,
                        "\(path) is not supported; thinking, enable_thinking, clear_thinking and reasoning_effort are")
                }
                if let isOn = try options.bool(name) { answers.append((path, isOn)) }
            }
        }
        guard let first = answers.first else { return (nil, nil) }
        if let other = answers.first(where: { $0.isOn != first.isOn }) {
            throw .invalid(other.path, "\(other.path) is \(other.isOn), but \(first.path) says \(first.isOn)")
        }
        return (first.isOn, first.path)
    }

    /// Returns true if the request asks for the reasoning of all earlier answers in the prompt: `clear_thinking` is false,
    /// where GLM's own clients put it (`thinking`) or where those of SGLang and vLLM do (`chat_template_kwargs`).
    static func keepsReasoning(_ fields: RequestFields) throws(RequestError) -> Bool {
        if let value = fields.value("thinking")?["clear_thinking"], !value.isNull {
            return try !RequestFields.bool(value, path: "thinking.clear_thinking")
        }
        return try fields.object("chat_template_kwargs")?.bool("clear_thinking") == false
    }

    /// Returns the effort of reasoning that the request asks for: `reasoning_effort`, also in `chat_template_kwargs`, or
    /// `reasoning.effort` in `/v1/responses`.
    static func effort(_ fields: RequestFields) throws(RequestError) -> EffortField? {
        if let level = try fields.string("reasoning_effort") {
            return EffortField(level: level, path: fields.path(of: "reasoning_effort"))
        }
        if let options = try fields.object("chat_template_kwargs"), let level = try options.string("reasoning_effort") {
            return EffortField(level: level, path: options.path(of: "reasoning_effort"))
        }
        guard let options = try fields.object("reasoning"), let level = try options.string("effort") else { return nil }
        return EffortField(level: level, path: options.path(of: "effort"))
    }

    private static func tools(_ fields: RequestFields) throws(RequestError) -> [ChatTool] {
        var tools: [ChatTool] = []
        for (index, value) in (try fields.array("tools") ?? []).enumerated() {
            let path = "tools[\(index)]"
            let tool = try RequestFields(value, path: path)
            guard try tool.string("type") ?? "function" == "function" else {
                throw .invalid("\(path).type", "\(path).type must be \"function\"")
            }
            guard let function = tool.value("function") else {
                throw .invalid("\(path).function", "\(path).function is missing")
            }
            tools.append(try ChatTool(function, at: "\(path).function"))
        }
        return tools
    }

    /// Returns `tool_choice`: a word, or `{"type": "function", "function": {"name": …}}`.
    private static func toolChoice(_ fields: RequestFields) throws(RequestError) -> ToolChoice {
        guard let choice = fields.value("tool_choice") else { return .auto }
        if let word = choice.string.flatMap(ToolChoice.init(word:)) { return word }
        guard choice["type"]?.string ?? "function" == "function",
            let name = choice["function"]?["name"]?.string ?? choice["name"]?.string
        else {
            throw .invalid(
                "tool_choice",
                "tool_choice must be \"none\", \"auto\", \"required\" or {\"type\": \"function\", "
                    + "\"function\": {\"name\": …}}")
        }
        return .named(name)
    }
}

extension ChatTool {
    /// Creates a tool from its description in a request.
    init(_ function: JSONValue, at path: String) throws(RequestError) {
        let fields = try RequestFields(function, path: path)
        _ = (try fields.string("name"), try fields.string("description"), try fields.bool("strict"))
        _ = try fields.object("parameters")
        do {
            try self.init(function: function)
        } catch {
            throw .invalid(path, "\(path) must be an object with a name")
        }
    }
}
