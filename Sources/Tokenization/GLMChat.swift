import JSON

/// Renders conversations of GLM-5, GLM-5.1 and GLM-5.2 as the releases' `chat_template.jinja` do.
///
/// Two things differ on purpose: a developer's message counts as a system's, which the templates leave out; and a tool
/// message must follow a call or another tool message.
struct GLMChat {
    private let format: ChatFormat
    private let messages: [ChatMessage]
    private let options: ChatOptions
    /// The index of the last message that a person wrote, or -1. Earlier reasoning is rendered only if the options keep
    /// it.
    private let lastUser: Int
    private var prompt = ChatPrompt()

    static func render(
        _ messages: [ChatMessage], _ options: ChatOptions, _ format: ChatFormat
    ) throws(ChatError) -> ChatPrompt {
        guard options.responseFormat == nil else { throw .unsupported("response format", by: format.rawValue) }
        var chat = GLMChat(
            format: format, messages: messages, options: options,
            lastUser: messages.lastIndex { $0.role == .user } ?? -1)
        try chat.render()
        return chat.prompt
    }

    private init(format: ChatFormat, messages: [ChatMessage], options: ChatOptions, lastUser: Int) {
        (self.format, self.messages, self.options, self.lastUser) = (format, messages, options, lastUser)
    }

    private mutating func render() throws(ChatError) {
        prompt.template("[gMASK]<sop>")
        if format == .glm52, options.thinking { prompt.template("<|system|>Reasoning Effort: Max") }
        if !options.tools.isEmpty { appendTools() }
        for (index, message) in messages.enumerated() {
            switch message.role {
            case .system, .developer:
                prompt.template("<|system|>")
                prompt.text(message.content)
            case .user:
                prompt.template("<|user|>")
                prompt.text(message.content)
            case .assistant: appendAssistant(message, at: index)
            case .tool: try appendResult(message, at: index)
            // `ChatFormat.render` refuses it.
            case .latestReminder: break
            }
        }
        if options.continuesFinalMessage { return }
        prompt.template("<|assistant|>" + (options.thinking ? "<think>" : noThoughts))
    }

    /// The marks of an answer that the model gives without thinking.
    private var noThoughts: String { format == .glm52 ? "<think></think>" : "</think>" }

    private mutating func appendTools() {
        prompt.template(Self.toolsBefore)
        for tool in options.tools {
            prompt.text(description(of: tool) + "\n")
        }
        prompt.template(Self.toolsAfter)
    }

    /// Returns the JSON text that describes a tool: the client's object in GLM-5, the function alone in later versions.
    private func description(of tool: ChatTool) -> String {
        if format == .glm5 {
            return JSONValue.object([
                JSONMember("type", .string("function")), JSONMember("function", tool.function),
            ]).pythonText
        }
        let members = (tool.function.object ?? []).filter { $0.key != "strict" && $0.key != "defer_loading" }
        return JSONValue.object(members).pythonText
    }

    private mutating func appendAssistant(_ message: ChatMessage, at index: Int) {
        prompt.template("<|assistant|>")
        let (reasoning, content) = thoughts(of: message)
        let hasReasoning = reasoning.map { !$0.isEmpty } ?? false
        // GLM-5 writes no marks around nothing; GLM-5.1 does while it thinks.
        let isShown =
            switch format {
            case _ where index <= lastUser: options.keepsReasoning && hasReasoning
            case .glm5: hasReasoning
            case .glm51: reasoning != nil || options.thinking
            default: reasoning != nil
            }
        if isShown {
            prompt.template("<think>")
            prompt.text(format == .glm5 ? Self.stripped(reasoning ?? "") : reasoning ?? "")
            prompt.template("</think>")
        } else {
            prompt.template(noThoughts)
        }
        prompt.text(Self.stripped(content))
        for call in message.toolCalls {
            prompt.template("<tool_call>")
            prompt.text(call.name)
            for argument in call.members {
                prompt.template("<arg_key>")
                prompt.text(argument.key)
                prompt.template("</arg_key><arg_value>")
                prompt.text(argument.value.string ?? argument.value.pythonText)
                prompt.template("</arg_value>")
            }
            prompt.template("</tool_call>")
        }
    }

    private mutating func appendResult(_ message: ChatMessage, at index: Int) throws(ChatError) {
        let before = index > 0 ? messages[index - 1] : nil
        if before?.role != .tool {
            guard before?.role == .assistant, before?.toolCalls.isEmpty == false else {
                throw .invalidMessage(
                    index: index, problem: "a tool message must follow the assistant's call that it answers")
            }
            prompt.template("<|observation|>")
        }
        prompt.template("<tool_response>")
        prompt.text(message.content)
        prompt.template("</tool_response>")
    }

    /// Returns a message's reasoning and answer, which clients also send as one text with marks.
    private func thoughts(of message: ChatMessage) -> (reasoning: String?, content: String) {
        if let reasoning = message.reasoning { return (reasoning, message.content) }
        let parts = Self.parts(of: message.content, at: "</think>")
        guard parts.count > 1 else { return (nil, message.content) }
        let (reasoning, content) = (parts[0], parts[parts.count - 1])
        let isTrimmed = format == .glm5
        func isLineBreak(_ scalar: Unicode.Scalar) -> Bool { isTrimmed && scalar == "\n" }
        let own = Self.parts(of: Self.trimmed(reasoning, start: false, where: isLineBreak), at: "<think>").last ?? ""
        return (
            Self.trimmed(own, end: false, where: isLineBreak), Self.trimmed(content, end: false, where: isLineBreak)
        )
    }

    private static func parts(of text: String, at mark: String) -> [String] {
        var parts: [String] = []
        var (rest, mark) = (Array(text.utf8)[...], Array(mark.utf8))
        while let place = rest.indices.first(where: { rest[$0...].starts(with: mark) }) {
            parts.append(String(decoding: rest[..<place], as: UTF8.self))
            rest = rest[(place + mark.count)...]
        }
        return parts + [String(decoding: rest, as: UTF8.self)]
    }

    /// Returns a text without white space at its ends, as Python's `strip` returns it.
    private static func stripped(_ text: String) -> String {
        trimmed(text) { $0.properties.isWhitespace || (0x1C...0x1F).contains($0.value) }
    }

    private static func trimmed(
        _ text: String, start: Bool = true, end: Bool = true, where isTrimmed: (Unicode.Scalar) -> Bool
    ) -> String {
        var scalars = Substring(text).unicodeScalars
        while start, let first = scalars.first, isTrimmed(first) { scalars.removeFirst() }
        while end, let last = scalars.last, isTrimmed(last) { scalars.removeLast() }
        return String(scalars)
    }

    /// Describes tools to the model, up to the list of functions.
    private static let toolsBefore = """
        <|system|>
        # Tools

        You may call one or more functions to assist with the user query.

        You are provided with function signatures within <tools></tools> XML tags:
        <tools>

        """

    private static let toolsAfter = """
        </tools>

        For each function call, output the function name and arguments within the following XML format:
        <tool_call>{function-name}<arg_key>{arg-key-1}</arg_key><arg_value>{arg-value-1}</arg_value>\
        <arg_key>{arg-key-2}</arg_key><arg_value>{arg-value-2}</arg_value>...</tool_call>
        """
}
