import Grammar
import Inference
import JSON
import Tokenization

/// A request to `/v1/chat/completions` that was checked.
struct ChatRequest: Sendable {
    let requests: [TextRequest]
    let wantsLogProbs: Bool
    /// The markup of the tool calls to look for; `nil` if no tools are offered.
    let toolCalls: ToolCallMarkup?
    /// Whether the answer may have more than one tool call.
    let allowsParallelCalls: Bool
    /// Whether the answer begins inside the model's reasoning.
    let startsInReasoning: Bool
    /// Whether the answer shows reasoning separately from content.
    let separatesReasoning: Bool
    let stream: StreamFields

    /// The estimated memory in bytes that the request takes; see `TextRequest.memory`.
    var memory: Int { requests.reduce(0) { $0 + $1.memory(isCollected: !stream.isOn) } }

    init(_ fields: RequestFields, service: TextService, configuration: ServerConfiguration) throws(RequestError) {
        try fields.requireModel(configuration.servedModelName)
        try FieldTable.check(fields, at: .chat)
        let format: ChatFormat
        do {
            format = try service.chatFormat.get()
        } catch {
            throw .invalid("messages", "\(error); use /v1/completions with a whole prompt")
        }
        stream = try StreamFields(fields)
        wantsLogProbs = try fields.bool("logprobs") ?? false
        let most = min(configuration.requests.maxTopLogProbs, service.engine.limits.maxTopLogProbs)
        let topCount = try fields.integer("top_logprobs", in: 0...most)
        guard wantsLogProbs || topCount ?? 0 == 0 else {
            throw .invalid("top_logprobs", "top_logprobs is only allowed with \"logprobs\": true")
        }
        var sampling = try SamplingFields(
            fields, names: .openAI, minMaxTokens: 1, defaultMaxTokens: nil, service: service,
            limits: configuration.requests)
        var options = ChatOptions(thinking: try Self.thinking(fields) ?? format.thinksByDefault)
        let hasPrefix = try ChatMessageFields.continuesLast(fields)
        options.continuesFinalMessage = try fields.bool("continue_final_message") ?? false || hasPrefix
        options.tools = try Self.tools(fields)
        toolCalls = options.tools.isEmpty ? nil : format.toolCalls(options.tools)
        allowsParallelCalls = try fields.bool("parallel_tool_calls") ?? true
        separatesReasoning = try fields.bool("separate_reasoning") ?? true && format.canThink
        let messages = try ChatMessageFields.messages(fields)
        let prompt: ChatPrompt
        do {
            prompt = try format.render(messages, options)
        } catch {
            throw RequestError(error)
        }
        startsInReasoning = prompt.startsInReasoning
        sampling.form = try fields.answerForm(
            with: options.tools, besides: sampling.form, allowsParallelCalls: allowsParallelCalls)
        if let form = sampling.form {
            if case .toolCalls = form.source, !format.hasToolCallGrammar {
                throw .invalid(
                    form.field,
                    "\(form.field): calls of tools cannot be enforced in the chat format of \(format.rawValue); use "
                        + "tool_choice \"auto\" and tools that are not strict")
            }
            if options.continuesFinalMessage {
                throw .invalid(form.field, "\(form.field) is not supported with continue_final_message")
            }
            if prompt.startsInReasoning { sampling.form?.source = .afterReasoning(form.source) }
        }
        let scores = wantsLogProbs ? LogProbOptions(topCount: topCount ?? 0) : nil
        let kept = format.keptTokens(service.tokenizer)
        let salt = try fields.cacheSalt(atMost: configuration.requests.maxCacheSaltBytes)
        let tokens = try service.tokens(of: prompt)
        // Stop strings apply to the answer, not to the reasoning before it.
        let stopsAfter = prompt.startsInReasoning ? format.reasoningEnds : []
        requests = sampling.requests(prompt: tokens, logProbs: scores, cacheSalt: salt).map { request in
            var request = request
            request.keptTokens = kept
            request.stopsAfter = stopsAfter
            return request
        }
    }

    /// Returns whether the model is to reason: DeepSeek's own switch is `thinking`, SGLang and vLLM pass on those of
    /// the chat template in `chat_template_kwargs`. It returns `nil` if the request has none of them.
    private static func thinking(_ fields: RequestFields) throws(RequestError) -> Bool? {
        var answers: [(path: String, isOn: Bool)] = []
        if let value = fields.value("thinking") {
            let type = value["type"]?.string
            guard let isOn = value.bool ?? (type == "enabled" ? true : type == "disabled" ? false : nil) else {
                throw .invalid("thinking", "thinking must be {\"type\": \"enabled\"} or {\"type\": \"disabled\"}")
            }
            answers.append(("thinking", isOn))
        }
        if let options = try fields.object("chat_template_kwargs") {
            for name in options.names {
                let path = options.path(of: name)
                guard name == "thinking" || name == "enable_thinking" else {
                    throw .invalid(path, "\(path) is not supported; thinking and enable_thinking are")
                }
                if let isOn = try options.bool(name) { answers.append((path, isOn)) }
            }
        }
        guard let first = answers.first else { return nil }
        if let other = answers.first(where: { $0.isOn != first.isOn }) {
            throw .invalid(other.path, "\(other.path) is \(other.isOn), but \(first.path) says \(first.isOn)")
        }
        return first.isOn
    }

    private static func tools(_ fields: RequestFields) throws(RequestError) -> [ChatTool] {
        let choice = fields.value("tool_choice")
        guard choice == nil || choice?.object != nil || ["none", "auto", "required"].contains(choice?.string) else {
            throw .invalid("tool_choice", "tool_choice must be \"none\", \"auto\", \"required\" or name a function")
        }
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
            do {
                tools.append(try ChatTool(function: function))
            } catch {
                throw .invalid("\(path).function", "\(path).function must be an object with a name")
            }
        }
        return choice?.string == "none" ? [] : tools
    }
}

extension RequestError {
    init(_ error: ChatError) {
        let parameter: String? =
            switch error {
            case .noMessages: "messages"
            case .invalidMessage(let index, _): "messages[\(index)]"
            case .invalidTool: "tools"
            case .unsupported("tools", _): "tools"
            case .unsupported("thinking", _): "chat_template_kwargs"
            case .unsupported: "messages"
            case .unknownFormat: nil
            }
        self = .invalid(parameter, error.description)
    }
}
