package import JSON

/// One message of a conversation, as a chat format renders it.
package struct ChatMessage: Sendable, Equatable {
    package enum Role: String, Sendable, CaseIterable {
        case system, user, developer, assistant, tool
        /// DeepSeek-V4's: what the model is to know now, such as the date.
        case latestReminder = "latest_reminder"
    }

    /// The task that DeepSeek-V4 performs after a message instead of answering it.
    package enum Task: String, Sendable, CaseIterable {
        case action, query, authority, domain, title
        case readURL = "read_url"
    }

    package var role: Role
    package var content: String
    /// The reasoning that preceded an assistant's answer.
    package var reasoning: String?
    /// The tools that an assistant called.
    package var toolCalls: [ChatToolCall]
    /// The id of the call that a tool message answers. Results without ids belong to the calls in order.
    package var toolCallID: String?
    /// The task that follows the message; only DeepSeek-V4 has tasks.
    package var task: Task?

    package init(
        _ role: Role, _ content: String, reasoning: String? = nil, toolCalls: [ChatToolCall] = [],
        toolCallID: String? = nil, task: Task? = nil
    ) {
        self.role = role
        self.content = content
        self.reasoning = reasoning
        self.toolCalls = toolCalls
        self.toolCallID = toolCallID
        self.task = task
    }
}

/// A call of a tool in a conversation.
package struct ChatToolCall: Sendable, Equatable {
    package var id: String?
    package var name: String
    /// The text of a JSON object, or whatever a model wrote instead of one.
    package var arguments: String

    package init(id: String? = nil, name: String, arguments: String) {
        self.id = id
        self.name = name
        self.arguments = arguments
    }

    /// The members of the arguments' object, as a conversation's history shows them.
    ///
    /// Arguments that are no JSON object, as of a call that a limit cut or that a model wrote wrongly, are one member
    /// `arguments` with their text: DeepSeek's own encoders of V4 do so, and the conversation can go on. Empty
    /// arguments have no members, because clients write nothing where a function takes nothing.
    var members: [JSONMember] {
        if arguments.utf8.allSatisfy({ $0 <= 0x20 }) { return [] }
        if let members = (try? JSONValue(parsing: arguments))?.object { return members }
        return [JSONMember("arguments", .string(arguments))]
    }
}

/// Describes a function that the model may call.
package struct ChatTool: Sendable, Equatable {
    /// The function's description as a JSON object with at least a `name`; it is written into the prompt unchanged.
    package let function: JSONValue

    /// Creates a tool from its description.
    ///
    /// - Throws: `ChatError.invalidTool` if this is no object or has no `name`.
    package init(function: JSONValue) throws(ChatError) {
        guard let name = function["name"]?.string, !name.isEmpty else {
            throw .invalidTool(problem: "a function must be an object with a `name`")
        }
        self.function = function
    }

    package var name: String { function["name"]?.string ?? "" }
}

/// Holds a request's options for a chat format, beside its messages.
package struct ChatOptions: Sendable, Equatable {
    /// True if the model is to reason before it answers. Models that always or never reason ignore it.
    package var thinking: Bool
    package var tools: [ChatTool]
    /// The schema that the answer must follow, as it is written into the prompt.
    package var responseFormat: JSONValue?
    /// True if the last message begins the assistant's answer, which the model then continues.
    package var continuesFinalMessage: Bool
    /// The thoroughness of the model's reasoning; `nil` if the request does not say. Only DeepSeek-V4 has efforts.
    package var effort: ReasoningEffort?
    /// True if the prompt has the reasoning of all earlier answers. Only GLM's formats have a switch for it; the others
    /// keep it or leave it out by rules of their own.
    package var keepsReasoning: Bool

    package init(
        thinking: Bool = false, tools: [ChatTool] = [], responseFormat: JSONValue? = nil,
        continuesFinalMessage: Bool = false, effort: ReasoningEffort? = nil, keepsReasoning: Bool = false
    ) {
        self.thinking = thinking
        self.tools = tools
        self.responseFormat = responseFormat
        self.continuesFinalMessage = continuesFinalMessage
        self.effort = effort
        self.keepsReasoning = keepsReasoning
    }
}

/// The degrees of reasoning that requests name.
package enum ReasoningEffort: String, Sendable, CaseIterable {
    case minimal, low, medium, high, xhigh, max
}

/// A rendered conversation.
package struct ChatPrompt: Sendable, Equatable {
    /// The input of `Tokenizer.encode(segments:)`; it begins with the beginning-of-sentence token.
    package var segments: [PromptSegment] = []

    /// The prompt as one string, for people to read.
    package var text: String {
        segments.reduce(into: "") { text, segment in
            switch segment {
            case .template(let part), .text(let part): text += part
            }
        }
    }

    package var byteCount: Int {
        segments.reduce(0) { count, segment in
            switch segment {
            case .template(let part), .text(let part): count + part.utf8.count
            }
        }
    }

    /// True if the model's output begins inside its reasoning.
    package internal(set) var startsInReasoning = false

    mutating func template(_ part: String) {
        if part.isEmpty { return }
        startsInReasoning = part.hasSuffix("<think>") || part.hasSuffix("<think>\n")
        if case .template(let before) = segments.last {
            segments[segments.count - 1] = .template(before + part)
        } else {
            segments.append(.template(part))
        }
    }

    mutating func text(_ part: String) {
        if part.isEmpty { return }
        startsInReasoning = false
        segments.append(.text(part))
    }
}

/// Says why a conversation cannot be rendered. `index` counts the request's messages from 0.
package enum ChatError: Error, Equatable, CustomStringConvertible {
    case noMessages
    case invalidMessage(index: Int, problem: String)
    case invalidTool(problem: String)
    /// The request has a feature that the model's chat format lacks.
    case unsupported(String, by: String)
    /// No chat format is known for the tokenizer.
    case unknownFormat(reason: String)

    package var description: String {
        switch self {
        case .noMessages: "a conversation needs at least one message"
        case .invalidMessage(let index, let problem): "messages[\(index)]: \(problem)"
        case .invalidTool(let problem): "tools: \(problem)"
        case .unsupported(let feature, let format): "the chat format of \(format) has no \(feature)"
        case .unknownFormat(let reason): "no chat format is known for this tokenizer: \(reason)"
        }
    }
}
