/// Renders conversations as a family of models expects them. Formats are code: templates of a checkpoint never run.
package enum ChatFormat: String, Sendable, CaseIterable {
    case deepSeekV3 = "DeepSeek-V3"
    case deepSeekR1 = "DeepSeek-R1"
    /// It is also the format of V3.2-Exp.
    case deepSeekV31 = "DeepSeek-V3.1"
    case deepSeekV32 = "DeepSeek-V3.2"
    /// As the encoder that is released with the checkpoints, `encoding_dsv4.py`, writes it.
    case deepSeekV4 = "DeepSeek-V4"
    /// As DeepSeek's later library `deepseek-recipe` 0.2.0 writes it, which SGLang calls.
    case deepSeekV4Recipe = "DeepSeek-V4 (deepseek-recipe)"
    case glm5 = "GLM-5"
    case glm51 = "GLM-5.1"
    case glm52 = "GLM-5.2"

    /// Returns the format of a tokenizer's model, recognised by its control tokens and, for R1 and the versions of
    /// GLM-5, by its template.
    ///
    /// - Throws: `ChatError.unknownFormat` if there is none, or if it is not supported.
    package static func detect(_ tokenizer: Tokenizer) throws(ChatError) -> ChatFormat {
        func has(_ token: String) -> Bool { tokenizer.controlToken(token) != nil }
        if has("[gMASK]"), has("<sop>") { return try glm(tokenizer) }
        for token in [Mark.begin, Mark.end, Mark.user, Mark.assistant] where !has(token) {
            throw .unknownFormat(reason: "it has no \(token)")
        }
        if has(Mark.latestReminder) {
            for token in [Mark.think, Mark.thinkEnd, DSMLTag.mark] where !has(token) {
                throw .unknownFormat(reason: "it has \(Mark.latestReminder), but no \(token)")
            }
            return .deepSeekV4
        }
        guard has(Mark.thinkEnd), has(Mark.think) else { return .deepSeekV3 }
        if has(DSMLTag.mark) { return .deepSeekV32 }
        let alwaysThinks = tokenizer.chatTemplate?.utf8.contains((Mark.assistant + Mark.think).utf8) ?? false
        return alwaysThinks ? .deepSeekR1 : .deepSeekV31
    }

    private static func glm(_ tokenizer: Tokenizer) throws(ChatError) -> ChatFormat {
        for token in ["<|system|>", "<|user|>", "<|assistant|>", "<|observation|>", Mark.think, Mark.thinkEnd]
        where tokenizer.controlToken(token) == nil {
            throw .unknownFormat(reason: "it has no \(token)")
        }
        guard let template = tokenizer.chatTemplate else {
            throw .unknownFormat(
                reason:
                    "only its template tells GLM-5, 5.1 and 5.2 apart; put the release's chat_template.jinja beside it")
        }
        func says(_ text: String) -> Bool { template.utf8.contains(text.utf8) }
        guard says("<arg_key>"), says("clear_thinking") else {
            throw .unknownFormat(reason: "its template is not that of GLM-5, 5.1 or 5.2")
        }
        if says("Reasoning Effort") { return .glm52 }
        return says("thinking_indices") ? .glm51 : .glm5
    }

    private var isGLM: Bool { self == .glm5 || self == .glm51 || self == .glm52 }

    /// True if this is one of DeepSeek-V4's formats, which have efforts, tasks and reminders.
    package var isV4: Bool { self == .deepSeekV4 || self == .deepSeekV4Recipe }

    /// The block of DeepSeek's markup in which models of this format call tools; `nil` for other markup.
    private var block: DSMLBlock? { isGLM ? nil : isV4 ? .toolCalls : .functionCalls }

    /// Returns the special tokens that the decoder of a model's output must keep, because `OutputParser` reads them.
    package func keptTokens(_ tokenizer: Tokenizer) -> Set<Int32> {
        Set([Mark.think, Mark.thinkEnd, DSMLTag.mark].compactMap { tokenizer.controlToken($0) })
    }

    /// Returns the markup in which models of this format call tools.
    package func toolCalls(_ tools: [ChatTool]) -> ToolCallMarkup {
        let types = ToolParameterTypes(tools)
        return block.map { .deepSeek($0, types) } ?? .glm(types)
    }

    /// The strings with which a model ends its reasoning: the mark, or the beginning of a tool call.
    package var reasoningEnds: [String] { [ReasoningParser.end] + toolCalls([]).openings }

    /// True if models of this format may reason before they answer.
    package var canThink: Bool { self != .deepSeekV3 }

    /// True if models of this format reason where a request does not say.
    package var thinksByDefault: Bool { isGLM }

    /// True if models of this format reason whatever a request says.
    package var alwaysThinks: Bool { self == .deepSeekR1 }

    /// The text with which a model opens its reasoning where the prompt has not; `nil` if the model has no reasoning.
    package var reasoningBeginning: String? { canThink ? ReasoningParser.begin : nil }

    /// SGLang's and vLLM's names of the parser of this format's tool calls. V3, R1 and V3.1 have parsers there; tools are
    /// refused here, because their templates do not describe them.
    package var toolCallParsers: [String] {
        switch self {
        case .deepSeekV3, .deepSeekR1: ["deepseekv3", "deepseek_v3"]
        case .deepSeekV31: ["deepseekv31", "deepseek_v31"]
        case .deepSeekV32: ["deepseekv32", "deepseek_v32"]
        case .deepSeekV4, .deepSeekV4Recipe: ["deepseekv4", "deepseek_v4"]
        case .glm5, .glm51, .glm52: ["glm47", "glm45"]
        }
    }

    /// SGLang's and vLLM's names of the parser of this format's reasoning.
    package var reasoningParsers: [String] {
        switch self {
        case .deepSeekV3: []
        case .deepSeekR1: ["deepseek-r1", "deepseek_r1"]
        case .deepSeekV31, .deepSeekV32: ["deepseek-v3", "deepseek_v3"]
        case .deepSeekV4, .deepSeekV4Recipe: ["deepseek-v4", "deepseek_v4"]
        case .glm5, .glm51, .glm52: ["glm45"]
        }
    }

    /// Renders a conversation up to the place where the model continues.
    ///
    /// - Throws: `ChatError` if the messages do not make a conversation of this format.
    package func render(_ messages: [ChatMessage], _ options: ChatOptions = ChatOptions()) throws(ChatError)
        -> ChatPrompt
    {
        guard let last = messages.last else { throw .noMessages }
        if options.continuesFinalMessage, last.role != .assistant || !last.toolCalls.isEmpty {
            throw .invalidMessage(
                index: messages.count - 1, problem: "only an assistant's message without tool calls can be continued")
        }
        if !isV4 {
            for (index, message) in messages.enumerated() {
                if message.role == .latestReminder {
                    throw .invalidMessage(index: index, problem: "\(rawValue) has no latest_reminder messages")
                }
                if message.task != nil {
                    throw .invalidMessage(index: index, problem: "\(rawValue) has no tasks")
                }
            }
            guard options.effort == nil else { throw .unsupported("reasoning effort", by: rawValue) }
        }
        switch self {
        case .deepSeekV32: return try DeepSeekV32Chat.render(messages, options)
        case .deepSeekV4, .deepSeekV4Recipe:
            return try DeepSeekV4Chat.render(messages, options, isRecipe: self == .deepSeekV4Recipe)
        case .glm5, .glm51, .glm52: return try GLMChat.render(messages, options, self)
        case .deepSeekV3, .deepSeekR1, .deepSeekV31: return try plainPrompt(messages, options)
        }
    }

    /// Names the control tokens of the formats.
    enum Mark {
        static let begin = "<｜begin▁of▁sentence｜>"
        static let end = "<｜end▁of▁sentence｜>"
        static let user = "<｜User｜>"
        static let assistant = "<｜Assistant｜>"
        static let latestReminder = "<｜latest_reminder｜>"
        static let think = "<think>"
        static let thinkEnd = "</think>"
    }
}

// MARK: - V3, R1 and V3.1

extension ChatFormat {
    /// Renders all system and developer messages, then the messages of user and assistant with their marks, as the
    /// Jinja templates of these models do. Tools are refused, because the templates leave their description to the
    /// caller.
    private func plainPrompt(_ messages: [ChatMessage], _ options: ChatOptions) throws(ChatError) -> ChatPrompt {
        guard options.tools.isEmpty else { throw .unsupported("tools", by: rawValue) }
        guard options.responseFormat == nil else { throw .unsupported("response format", by: rawValue) }
        guard !options.thinking || self != .deepSeekV3 else { throw .unsupported("thinking", by: rawValue) }
        var messages = messages
        // V3.1 answers only users.
        if self == .deepSeekV31, let place = messages.systemToAnswer { messages[place].role = .user }
        var prompt = ChatPrompt()
        prompt.template(Mark.begin)
        let system = messages.filter { $0.role == .system || $0.role == .developer }.map(\.content)
        prompt.text(system.joined(separator: "\n\n"))
        var isAfterUser = false
        for (index, message) in messages.enumerated() {
            switch message.role {
            case .system, .developer, .latestReminder: continue
            case .user:
                prompt.template(Mark.user)
                prompt.text(message.content)
                isAfterUser = true
            case .assistant where message.toolCalls.isEmpty:
                let isContinued = options.continuesFinalMessage && index == messages.count - 1
                if isAfterUser || self != .deepSeekV31 { prompt.template(Mark.assistant) }
                let goesOn = isContinued && isContinuedInReasoning(message, isAfterUser: isAfterUser, options)
                if goesOn {
                    let answer = ContinuedAnswer(message, cutsAtLast: self == .deepSeekR1)
                    prompt.template(Mark.think + (self == .deepSeekR1 && !answer.hasOpening ? "\n" : ""))
                    prompt.appendInReasoning(answer)
                } else {
                    if isAfterUser, self == .deepSeekV31 { prompt.template(Mark.thinkEnd) }
                    prompt.text(answer(in: message.content))
                }
                if !isContinued { prompt.template(Mark.end) }
                isAfterUser = false
            case .assistant, .tool: throw .unsupported("tool calls", by: rawValue)
            }
        }
        if !options.continuesFinalMessage { prompt.template(opening(isAfterUser: isAfterUser, options)) }
        return prompt
    }

    /// Returns the text that makes the model answer; V3.1 answers only users.
    private func opening(isAfterUser: Bool, _ options: ChatOptions) -> String {
        switch self {
        case .deepSeekR1: Mark.assistant + Mark.think + "\n"
        case .deepSeekV31 where !isAfterUser: ""
        case .deepSeekV31: Mark.assistant + (options.thinking ? Mark.think : Mark.thinkEnd)
        default: Mark.assistant
        }
    }

    /// Returns whether the beginning of an answer that the model continues is rendered behind `<think>`: in V3.1 if the
    /// model thinks, in R1 if the message has reasoning, because its template does not open any in an answer.
    ///
    /// The templates drop the reasoning; it is kept here, since V3.1 would reason on behind it, and R1 need it to go on.
    private func isContinuedInReasoning(_ message: ChatMessage, isAfterUser: Bool, _ options: ChatOptions) -> Bool {
        switch self {
        case .deepSeekV31: return isAfterUser && options.thinking
        case .deepSeekR1:
            let answer = ContinuedAnswer(message, cutsAtLast: true)
            return answer.hasOpening || answer.reasoning != nil
        default: return false
        }
    }

    /// Returns the answer in a content, without the reasoning that clients may send with it: V3.1 cuts at the first mark,
    /// R1 at the last.
    private func answer(in content: String) -> String {
        guard self != .deepSeekV3 else { return content }
        return ContinuedAnswer.parts(of: content, cutsAtLast: self == .deepSeekR1).answer
    }
}
