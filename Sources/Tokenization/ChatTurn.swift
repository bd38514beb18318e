import JSON

/// A message with its index in the request, for errors.
struct ChatTurn {
    let index: Int
    var message: ChatMessage

    func invalid(_ problem: String) -> ChatError { .invalidMessage(index: index, problem: problem) }
}

extension [ChatTurn] {
    /// The messages with the roles in which DeepSeek's formats render them: a developer message counts as a system
    /// message unless it is the only message to answer, and a system message that the model has to answer counts as a
    /// user message (`systemToAnswer`).
    var withRolesResolved: [ChatTurn] {
        var turns = self
        for (place, turn) in enumerated() where turn.message.role == .developer {
            let before = self[..<place].last { $0.message.role != .system && $0.message.role != .developer }
            let next = place + 1 < count ? self[place + 1].message.role : nil
            let isPending = before?.message.role == .user || before?.message.role == .tool
            let isOpening = before == nil && self[place...].contains { $0.message.role == .user }
            if isPending || isOpening || next != nil && next != .assistant { turns[place].message.role = .system }
        }
        if turns.last?.message.role == .system, let place = turns.map(\.message).systemToAnswer {
            turns[place].message.role = .user
        }
        return turns
    }
}

extension [ChatMessage] {
    /// The index of the system or developer message that the model has to answer, because nothing else asks for an
    /// answer: the last message, if it follows an answer or nothing but such messages. `nil` if there is none.
    var systemToAnswer: Int? {
        func isSystem(_ message: ChatMessage) -> Bool { message.role == .system || message.role == .developer }
        guard let last, isSystem(last) else { return nil }
        guard let before = self.last(where: { !isSystem($0) }) else { return count - 1 }
        return before.role == .assistant && before.toolCalls.isEmpty ? count - 1 : nil
    }
}

extension ChatPrompt {
    /// Appends the tools and the response format of a conversation, after its first system message.
    ///
    /// - Parameters:
    ///   - toolsBefore: The text between an empty line and the tools.
    ///   - toolsAfter: The text that follows the tools.
    mutating func appendRequirements(of options: ChatOptions, toolsBefore: String, toolsAfter: String) {
        if !options.tools.isEmpty {
            template("\n\n" + toolsBefore)
            text(options.tools.map(\.function.pythonText).joined(separator: "\n"))
            template(toolsAfter)
        }
        if let format = options.responseFormat {
            template("\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n")
            text(format.pythonText)
        }
    }

    /// Appends an assistant's calls in DeepSeek's markup, if there are any.
    ///
    /// - Parameter hasEmptyLine: whether a call without arguments contains an empty line.
    mutating func append(_ calls: [ChatToolCall], in block: DSMLBlock, hasEmptyLine: Bool = true) {
        if calls.isEmpty { return }
        let mark = DSMLTag.mark
        template("\n\n<\(mark)\(block.rawValue)>")
        for call in calls {
            template("\n<\(mark)invoke name=\"")
            text(call.name)
            template("\">")
            let members = call.members
            for member in members {
                template("\n<\(mark)parameter name=\"")
                text(member.key)
                template("\" string=\"\(member.value.string != nil)\">")
                text(member.value.string ?? member.value.pythonText)
                template("</\(mark)parameter>")
            }
            if members.isEmpty, hasEmptyLine { template("\n") }
            template("\n</\(mark)invoke>")
        }
        template("\n</\(mark)\(block.rawValue)>")
    }
}
