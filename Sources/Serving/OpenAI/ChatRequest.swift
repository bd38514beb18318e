import Grammar
import Inference
import JSON
import Tokenization

/// A checked request to `/v1/chat/completions`.
struct ChatRequest {
    let requests: [TextRequest]
    let wantsLogProbs: Bool
    let offersTools: Bool
    /// False if the client wants to see one tool call at most.
    let allowsParallelCalls: Bool
    /// Whether the answer begins inside the model's reasoning, to be told apart from its content.
    let startsInReasoning: Bool
    let stream: StreamFields

    init(_ fields: RequestFields, service: TextService, configuration: ServerConfiguration) throws(RequestError) {
        try fields.requireModel(configuration.servedModelName)
        try Self.refuseUnsupported(fields)
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
        var options = ChatOptions(thinking: try Self.thinking(fields))
        options.continuesFinalMessage = try fields.bool("continue_final_message") ?? false
        options.tools = try Self.tools(fields)
        offersTools = !options.tools.isEmpty
        allowsParallelCalls = try fields.bool("parallel_tool_calls") ?? true
        let separatesReasoning = try fields.bool("separate_reasoning") ?? true
        let messages = try ChatMessageFields.messages(fields)
        let prompt: ChatPrompt
        do {
            prompt = try format.render(messages, options)
        } catch {
            throw RequestError(error)
        }
        startsInReasoning = prompt.startsInReasoning && separatesReasoning
        sampling.form = try fields.answerForm(
            with: options.tools, besides: sampling.form, allowsParallelCalls: allowsParallelCalls)
        if let form = sampling.form {
            if options.continuesFinalMessage {
                throw .invalid(form.field, "\(form.field) is not supported with continue_final_message")
            }
            if prompt.startsInReasoning { sampling.form?.source = .afterReasoning(form.source) }
        }
        let scores = wantsLogProbs ? LogProbOptions(topCount: topCount ?? 0) : nil
        let kept = format.keptTokens(service.tokenizer)
        let salt = try fields.cacheSalt(atMost: configuration.requests.maxCacheSaltBytes)
        let tokens = service.tokenizer.encode(segments: prompt.segments)
        requests = sampling.requests(prompt: tokens, logProbs: scores, cacheSalt: salt).map { request in
            var request = request
            request.keptTokens = kept
            return request
        }
    }

    /// Refuses what would otherwise be ignored although the answer depends on it.
    private static func refuseUnsupported(_ fields: RequestFields) throws(RequestError) {
        for name in ["reasoning_effort", "reasoning"] where fields.value(name) != nil {
            throw .invalid(
                name, "\(name) is not supported; use \"chat_template_kwargs\": {\"thinking\": true or false}")
        }
        for name in ["functions", "function_call"] where fields.value(name) != nil {
            throw .invalid(name, "\(name) is not supported; use tools and tool_choice")
        }
    }

    private static func thinking(_ fields: RequestFields) throws(RequestError) -> Bool {
        guard let options = try fields.object("chat_template_kwargs") else { return false }
        var thinking = false
        for name in options.names {
            guard name == "thinking" || name == "enable_thinking" else {
                throw .invalid(
                    options.path(of: name),
                    "\(options.path(of: name)) is not supported; thinking and enable_thinking are")
            }
            thinking = try options.bool(name) ?? thinking
        }
        return thinking
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
