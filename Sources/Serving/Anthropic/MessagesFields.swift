import Inference
import JSON
import Tokenization

/// The members of a request to Anthropic's `/v1/messages` or `/v1/messages/count_tokens`.
struct MessagesFields {
    let conversation: Conversation
    /// True if the answer shows the text of its reasoning.
    let showsThinking: Bool
    private let fields: RequestFields

    /// Reads the members that both routes have.
    init(_ fields: RequestFields, at place: FieldTable.Place, served: [String]) throws(RequestError) {
        try fields.checkModel(served)
        try FieldTable.check(fields, at: place)
        self.fields = fields
        var conversation = Conversation(messages: try AnthropicMessages.messages(fields))
        if let last = conversation.messages.last?.message, last.role == .assistant {
            conversation.continuesFinalMessage = true
        }
        if let text = try AnthropicMessages.text(fields, "system") {
            conversation.messages.insert(Conversation.Message(ChatMessage(.system, text), at: "system"), at: 0)
        }
        conversation.tools = try Self.tools(fields)
        (conversation.thinking, showsThinking) = try Self.thinking(fields)
        conversation.thinkingField = fields.value("thinking") == nil ? nil : "thinking"
        if let output = try fields.object("output_config") {
            try FieldTable.check(output, at: .messagesOutput)
            conversation.effort = try output.string("effort").map {
                EffortField(level: $0, path: output.path(of: "effort"))
            }
        }
        try Self.checkContextManagement(fields)
        if let choice = try fields.object("tool_choice") {
            conversation.toolChoice = try Self.toolChoice(choice)
            conversation.allowsParallelCalls = !(try choice.bool("disable_parallel_tool_use") ?? false)
        }
        self.conversation = conversation
    }

    /// Returns how an answer to `/v1/messages` is sampled and shown.
    func options(
        _ service: TextService, _ configuration: ServerConfiguration
    ) throws(RequestError) -> ChatRequest.Options {
        guard fields.value("max_tokens") != nil else {
            throw .invalid("max_tokens", "max_tokens is missing; give the most tokens that the answer may have")
        }
        var sampling = try SamplingFields(
            fields, names: .messages, minMaxTokens: 1, defaultMaxTokens: nil, service: service,
            limits: configuration.requests)
        let forms = [try fields.object("output_config")?.object("format"), try fields.object("output_format")]
        for (format, name) in zip(forms, ["output_config.format", "output_format"]) {
            guard let format else { continue }
            guard try format.string("type") == "json_schema", let schema = format.value("schema") else {
                throw .invalid(name, "\(name) must be {\"type\": \"json_schema\", \"schema\": …}")
            }
            let source = try RequestFields.schema(schema, "\(name).schema")
            if let other = sampling.form {
                throw .invalid(name, "\(other.field) and \(name) are both given; an answer has one form")
            }
            sampling.form = try AnswerForm(checking: source, field: name)
        }
        return ChatRequest.Options(
            sampling: sampling, cacheSalt: try fields.cacheSalt(atMost: configuration.requests.maxCacheSaltBytes),
            id: try fields.requestID(), isStreamed: try fields.bool("stream") ?? false)
    }

    /// Refuses edits of the conversation, except the one that keeps all reasoning, which changes nothing.
    private static func checkContextManagement(_ fields: RequestFields) throws(RequestError) {
        for edit in try fields.object("context_management")?.array("edits") ?? [] {
            let type = edit["type"]?.string ?? ""
            guard type.hasPrefix("clear_thinking"), edit["keep"]?.string == "all" else {
                throw .invalid(
                    "context_management",
                    "context_management: the edit '\(type.prefix(64))' is not supported; leave out what is not wanted",
                    code: "unsupported_parameter")
            }
        }
    }

    /// Returns the tools that the client itself runs. Those that Anthropic runs or describes do not exist here.
    private static func tools(_ fields: RequestFields) throws(RequestError) -> [ChatTool] {
        var tools: [ChatTool] = []
        for (index, value) in (try fields.array("tools") ?? []).enumerated() {
            let path = "tools[\(index)]"
            let tool = try RequestFields(value, path: path)
            let type = try tool.string("type") ?? "custom"
            guard type == "custom" else {
                throw .invalid(
                    "\(path).type",
                    "\(path).type is '\(type.prefix(64))'; only tools with an input_schema are supported",
                    code: "unsupported_parameter")
            }
            try FieldTable.check(tool, at: .messagesTool)
            guard let schema = tool.value("input_schema"), try tool.object("input_schema") != nil else {
                throw .invalid("\(path).input_schema", "\(path).input_schema is missing")
            }
            // The order of members in DeepSeek's own examples.
            var function = JSONMember.list(["name": .optional(try tool.string("name"))])
            if let text = try tool.string("description") { function.append(JSONMember("description", .string(text))) }
            function.append(JSONMember("parameters", schema))
            if let strict = try tool.bool("strict") { function.append(JSONMember("strict", .bool(strict))) }
            tools.append(try ChatTool(.object(function), at: path))
        }
        return tools
    }

    private static func toolChoice(_ choice: RequestFields) throws(RequestError) -> ToolChoice {
        switch try choice.string("type") {
        case "auto": return .auto
        case "any": return .required
        case "none": return .none
        case "tool":
            guard let name = try choice.string("name") else {
                throw .invalid("tool_choice.name", "tool_choice.name is missing; it is the name of a tool")
            }
            return .named(name)
        default: throw .invalid("tool_choice.type", "tool_choice.type must be \"auto\", \"any\", \"tool\" or \"none\"")
        }
    }

    /// Returns whether the model is to reason, which it is only if the request says so, and whether the answer shows the
    /// text of its reasoning.
    private static func thinking(_ fields: RequestFields) throws(RequestError) -> (isOn: Bool, isShown: Bool) {
        guard let thinking = try fields.object("thinking") else { return (false, true) }
        try FieldTable.check(thinking, at: .messagesThinking)
        _ = try thinking.integer("budget_tokens", in: 1...Int.max)
        let display = try thinking.string("display") ?? "summarized"
        guard ["summarized", "omitted"].contains(display) else {
            throw .invalid("thinking.display", "thinking.display must be \"summarized\" or \"omitted\"")
        }
        switch try thinking.string("type") {
        case "enabled", "adaptive": return (true, display != "omitted")
        case "disabled": return (false, true)
        default:
            throw .invalid("thinking.type", "thinking.type must be \"enabled\", \"adaptive\" or \"disabled\"")
        }
    }
}

/// Reads the messages of Anthropic's requests, whose content is a text or a list of blocks.
enum AnthropicMessages {
    static func messages(_ fields: RequestFields) throws(RequestError) -> [Conversation.Message] {
        guard let values = try fields.array("messages"), !values.isEmpty else {
            throw .invalid("messages", "messages is missing or empty; give at least one message")
        }
        var messages: [Conversation.Message] = []
        for (index, value) in values.enumerated() {
            let path = "messages[\(index)]"
            let message = try RequestFields(value, path: path)
            switch try message.string("role") {
            case "user": messages += try user(message, path)
            case "assistant": messages.append(Conversation.Message(try assistant(message), at: path))
            case "system":
                let content = try text(message, "content") ?? ""
                messages.append(Conversation.Message(ChatMessage(.system, content), at: path))
            default:
                let role = message.path(of: "role")
                throw .invalid(role, "\(role) must be \"user\", \"assistant\" or \"system\"")
            }
        }
        return messages
    }

    /// Returns the messages in a user's: the results of tools come first, since they belong to the calls before them.
    private static func user(_ message: RequestFields, _ path: String) throws(RequestError) -> [Conversation.Message] {
        var results: [Conversation.Message] = []
        var texts: [String] = []
        for block in try blocks(message, "content") {
            switch try block.string("type") {
            case "text": texts.append(try block.requiredString("text"))
            case "tool_result":
                let id = try block.requiredString("tool_use_id")
                let content = try text(block, "content") ?? ""
                results.append(Conversation.Message(ChatMessage(.tool, content, toolCallID: id), at: path))
            case let type: throw unreadable(block, type)
            }
        }
        if !texts.isEmpty || results.isEmpty {
            results.append(Conversation.Message(ChatMessage(.user, texts.joined(separator: "\n")), at: path))
        }
        return results
    }

    private static func assistant(_ message: RequestFields) throws(RequestError) -> ChatMessage {
        var texts: [String] = []
        var reasoning: String?
        var calls: [ChatToolCall] = []
        for block in try blocks(message, "content") {
            switch try block.string("type") {
            case "text": texts.append(try block.requiredString("text"))
            case "thinking": reasoning = (reasoning ?? "") + (try block.requiredString("thinking"))
            // Anthropic alone can read it, and a conversation that it began must not end with it.
            case "redacted_thinking": continue
            case "tool_use":
                calls.append(
                    ChatToolCall(
                        id: try block.requiredString("id"), name: try block.requiredString("name"),
                        arguments: try arguments(block)))
            case let type: throw unreadable(block, type)
            }
        }
        return ChatMessage(.assistant, texts.joined(separator: "\n"), reasoning: reasoning, toolCalls: calls)
    }

    /// Returns the arguments of an earlier call: an object, or the text that a client kept of a call without arguments or
    /// of one that was cut.
    private static func arguments(_ block: RequestFields) throws(RequestError) -> String {
        if let text = block.value("input")?.string { return text }
        return JSONValue.object(try block.object("input")?.members ?? []).pythonText
    }

    /// Returns a member that is a text or a list of text blocks, whose texts become lines; `nil` if it is absent.
    static func text(_ fields: RequestFields, _ name: String) throws(RequestError) -> String? {
        guard fields.value(name) != nil else { return nil }
        var texts: [String] = []
        for block in try blocks(fields, name) {
            let type = try block.string("type")
            guard type == "text" else { throw unreadable(block, type) }
            texts.append(try block.requiredString("text"))
        }
        return texts.joined(separator: "\n")
    }

    /// Returns the blocks of a member. A text counts as one block.
    private static func blocks(_ fields: RequestFields, _ name: String) throws(RequestError) -> [RequestFields] {
        let path = fields.path(of: name)
        guard let value = fields.value(name) else { throw .invalid(path, "\(path) is missing; give a text or blocks") }
        if let text = value.string {
            return [try RequestFields(.fields(["type": .string("text"), "text": .string(text)]), path: path)]
        }
        guard let elements = value.array else {
            throw .invalid(path, "\(path) must be a text or a list of blocks, not \(value.kindName)")
        }
        var blocks: [RequestFields] = []
        for (index, element) in elements.enumerated() {
            let block = try RequestFields(element, path: "\(path)[\(index)]")
            try FieldTable.check(block, at: .messagesBlock)
            blocks.append(block)
        }
        return blocks
    }

    private static func unreadable(_ block: RequestFields, _ type: String?) -> RequestError {
        let path = block.path(of: "type")
        guard let type else { return .invalid(path, "\(path) is missing") }
        let reason =
            ["image", "document"].contains(type)
            ? "is not supported: this model reads text only; leave \(type)s out"
            : "this model does not read in this place"
        return .invalid(path, "\(path) is '\(type.prefix(64))', which \(reason)", code: "unsupported_content")
    }
}
