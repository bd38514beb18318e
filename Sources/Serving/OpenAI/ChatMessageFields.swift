import JSON
import Tokenization

/// Reads the `messages` of a chat request.
enum ChatMessageFields {
    static func messages(_ fields: RequestFields) throws(RequestError) -> [ChatMessage] {
        guard let values = try fields.array("messages") else {
            throw .invalid("messages", "messages is missing; give a list of at least one message")
        }
        guard !values.isEmpty else { throw .invalid("messages", "messages is empty; give at least one message") }
        var messages: [ChatMessage] = []
        for (index, value) in values.enumerated() {
            messages.append(try message(RequestFields(value, path: "messages[\(index)]")))
        }
        return messages
    }

    /// Returns whether the last message is marked as the beginning of the answer, with DeepSeek's `"prefix": true`.
    static func continuesLast(_ fields: RequestFields) throws(RequestError) -> Bool {
        var isLast = false
        for (index, value) in (try fields.array("messages") ?? []).enumerated() {
            let message = try RequestFields(value, path: "messages[\(index)]")
            if isLast {
                throw .invalid(
                    "messages[\(index - 1)].prefix", "only the last message can be the beginning of the answer")
            }
            isLast = try message.bool("prefix") ?? false
        }
        return isLast
    }

    private static func message(_ fields: RequestFields) throws(RequestError) -> ChatMessage {
        try FieldTable.check(fields, at: .message)
        let name = try fields.string("role")
        guard let role = name.flatMap(ChatMessage.Role.init(rawValue:)) else {
            let path = fields.path(of: "role")
            let known = ChatMessage.Role.allCases.map(\.rawValue).joined(separator: ", ")
            throw .invalid(path, "\(path) must be one of \(known)\(name.map { ", not '\($0.prefix(32))'" } ?? "")")
        }
        let calls = try toolCalls(fields)
        guard calls.isEmpty || role == .assistant else {
            throw .invalid(fields.path(of: "tool_calls"), "only an assistant's message has tool_calls")
        }
        // Assistants that only reason or call have no content, nor have tools that return nothing.
        guard let content = try ContentParts.text(fields, "content") ?? (role == .assistant || role == .tool ? "" : nil)
        else {
            let path = fields.path(of: "content")
            throw .invalid(path, "\(path) is missing; give a text or a list of text parts")
        }
        var reasoning = try fields.string("reasoning_content")
        if reasoning == nil { reasoning = try fields.string("reasoning") }
        return ChatMessage(
            role, content, reasoning: reasoning, toolCalls: calls,
            toolCallID: try fields.string("tool_call_id"), task: try task(fields))
    }

    static func task(_ fields: RequestFields) throws(RequestError) -> ChatMessage.Task? {
        guard let name = try fields.string("task") else { return nil }
        guard let task = ChatMessage.Task(rawValue: name) else {
            let (path, known) = (fields.path(of: "task"), ChatMessage.Task.allCases.map(\.rawValue))
            throw .invalid(path, "\(path) must be one of \(known.joined(separator: ", ")), not '\(name.prefix(32))'")
        }
        return task
    }

    private static func toolCalls(_ fields: RequestFields) throws(RequestError) -> [ChatToolCall] {
        var calls: [ChatToolCall] = []
        for (index, value) in (try fields.array("tool_calls") ?? []).enumerated() {
            let call = try RequestFields(value, path: "\(fields.path(of: "tool_calls"))[\(index)]")
            let function = try call.object("function") ?? .empty
            guard let name = try function.string("name") else {
                let path = call.path(of: "function")
                throw .invalid(path, "\(path) must be an object with name and arguments")
            }
            // Some clients send arguments as an object instead of its text. Whatever else a model wrote in an earlier
            // turn must not end the conversation.
            let arguments = function.value("arguments").map { $0.string ?? $0.pythonText } ?? ""
            calls.append(ChatToolCall(id: try call.string("id"), name: name, arguments: arguments))
        }
        return calls
    }
}
