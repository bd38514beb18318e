import JSON

/// Renders DeepSeek-V3.2's conversations, with thinking and tools, as its `encoding_dsv32.py` does.
///
/// Four differences are intended. Tool results are matched to calls by their ids, if they have ids. A conversation
/// with fewer results than calls is refused, since its prompt would lack the place where the model continues. System
/// and developer messages are rendered at their place in the conversation, whereas the reference puts a system message
/// after a user message behind the assistant's mark, where it looks like the assistant's own words, and drops developer
/// messages in thinking mode. An answer that the model continues while it thinks may have no reasoning: the model then
/// goes on reasoning, as V3.1's template has it.
enum DeepSeekV32Chat {
    static func render(_ messages: [ChatMessage], _ options: ChatOptions) throws(ChatError) -> ChatPrompt {
        var turns = inOrder(messages.enumerated().map { ChatTurn(index: $0.offset, message: $0.element) })
        if options.thinking {
            let lastUser = lastUser(in: turns)
            for place in turns.indices where place < lastUser { turns[place].message.reasoning = nil }
        }
        if !options.tools.isEmpty || options.responseFormat != nil, turns.first?.message.role != .system {
            turns.insert(ChatTurn(index: 0, message: ChatMessage(.system, "")), at: 0)
        }
        var renderer = Renderer(turns: turns, options: options, lastUser: lastUser(in: turns))
        return try renderer.render()
    }

    /// Returns the messages in the order and with the roles in which they are rendered. System messages between tool
    /// results move behind them.
    private static func inOrder(_ messages: [ChatTurn]) -> [ChatTurn] {
        var turns = messages.withRolesResolved
        for call in turns.indices where !turns[call].message.toolCalls.isEmpty {
            let end =
                turns[(call + 1)...].firstIndex { $0.message.role != .tool && $0.message.role != .system }
                ?? turns.count
            let run = turns[(call + 1)..<end]
            turns.replaceSubrange(
                (call + 1)..<end,
                with: run.filter { $0.message.role == .tool } + run.filter { $0.message.role == .system })
        }
        return turns
    }

    /// Returns the index of the last message that a user or developer wrote, or -1.
    private static func lastUser(in turns: [ChatTurn]) -> Int {
        turns.lastIndex { $0.message.role == .user || $0.message.role == .developer } ?? -1
    }
}

private struct Renderer {
    typealias Mark = ChatFormat.Mark

    let turns: [ChatTurn]
    let options: ChatOptions
    let lastUser: Int
    var prompt = ChatPrompt()

    init(turns: [ChatTurn], options: ChatOptions, lastUser: Int) {
        self.turns = turns
        self.options = options
        self.lastUser = lastUser
    }

    mutating func render() throws(ChatError) -> ChatPrompt {
        prompt.template(Mark.begin)
        var place = 0
        while place < turns.count {
            let message = turns[place].message
            switch message.role {
            case .system:
                prompt.text(message.content)
                if place == 0 {
                    prompt.appendRequirements(
                        of: options, toolsBefore: DeepSeekV32Chat.toolsBefore, toolsAfter: DeepSeekV32Chat.toolsAfter)
                }
            case .user:
                let isLast = place == lastUser
                prompt.template(Mark.user)
                prompt.text(message.content)
                place += appendReminders(after: place, before: "\n\n", after: "")
                prompt.template(Mark.assistant + thinkMark(isLast))
            case .developer:
                guard !message.content.isEmpty else { throw turns[place].invalid("a developer message needs content") }
                let isLast = place == lastUser
                prompt.template(Mark.user + "\n\n# The user's message is: ")
                prompt.text(message.content)
                place += appendReminders(after: place, before: "\n\n", after: "")
                prompt.template(Mark.assistant + thinkMark(isLast))
            case .assistant:
                try appendAssistant(at: place)
                place += try appendResults(after: place)
            case .tool: throw turns[place].invalid("a tool message must follow the assistant's call that it answers")
            // `ChatFormat.render` refuses it.
            case .latestReminder: break
            }
            place += 1
        }
        return prompt
    }

    /// Renders the system messages that follow a message before the assistant's answer to it.
    ///
    /// - Returns: the number of these messages.
    private mutating func appendReminders(after place: Int, before opening: String, after closing: String) -> Int {
        let reminders = turns[(place + 1)...].prefix { $0.message.role == .system }
        for reminder in reminders where !reminder.message.content.isEmpty {
            prompt.template(opening)
            prompt.text(reminder.message.content)
            prompt.template(closing)
        }
        return reminders.count
    }

    private func thinkMark(_ isCurrent: Bool) -> String {
        isCurrent && options.thinking ? Mark.think : Mark.thinkEnd
    }

    private mutating func appendAssistant(at place: Int) throws(ChatError) {
        let message = turns[place].message
        let isContinued = options.continuesFinalMessage && place == turns.count - 1
        if isContinued, prompt.startsInReasoning { return prompt.appendInReasoning(ContinuedAnswer(message)) }
        if options.thinking, place > lastUser {
            let reasoning = message.reasoning ?? ""
            guard isContinued || !reasoning.isEmpty || !message.toolCalls.isEmpty else {
                throw turns[place].invalid(
                    "in thinking mode an assistant's message after the last user message needs reasoning or tool calls")
            }
            prompt.text(reasoning)
            if !isContinued || !reasoning.isEmpty { prompt.template(Mark.thinkEnd) }
        }
        prompt.text(message.content)
        prompt.append(message.toolCalls, in: .functionCalls)
        if !isContinued { prompt.template(Mark.end) }
    }

    /// Renders the tool messages that follow an assistant's calls, and the system messages behind them.
    ///
    /// - Returns: the number of these messages. It is 0 if the conversation has no results for the calls, which is
    ///   allowed.
    private mutating func appendResults(after place: Int) throws(ChatError) -> Int {
        let calls = turns[place].message.toolCalls
        let results = Array(turns[(place + 1)...].prefix { $0.message.role == .tool })
        guard !results.isEmpty else { return 0 }
        guard results.count <= calls.count else {
            throw results[calls.count].invalid("there is no tool call that this message answers")
        }
        guard results.count == calls.count else {
            throw turns[place].invalid("\(calls.count) tools were called, but \(results.count) results follow")
        }
        prompt.template("\n\n<function_results>")
        for result in try inOrder(results, of: calls) {
            prompt.template("\n<result>")
            prompt.text(result.message.content)
            prompt.template("</result>")
        }
        prompt.template("\n</function_results>\n\n")
        let reminders = appendReminders(after: place + results.count, before: "", after: "\n\n")
        prompt.template(thinkMark(place + results.count >= lastUser))
        return results.count + reminders
    }

    /// Returns results in the order of the calls: by id if all have distinct ids, else unchanged.
    private func inOrder(
        _ results: [ChatTurn], of calls: [ChatToolCall]
    ) throws(ChatError) -> [ChatTurn] {
        let ids = calls.compactMap { $0.id.map(JSONKey.init) }
        guard Set(ids).count == calls.count, results.allSatisfy({ $0.message.toolCallID != nil }) else {
            return results
        }
        var ordered: [ChatTurn?] = Array(repeating: nil, count: calls.count)
        for result in results {
            let id = result.message.toolCallID ?? ""
            guard let place = ids.firstIndex(of: JSONKey(id)), ordered[place] == nil else {
                throw result.invalid("there is no tool call \"\(id)\" left that this message answers")
            }
            ordered[place] = result
        }
        return ordered.compactMap(\.self)
    }
}

extension DeepSeekV32Chat {
    /// Describes tools to the model, up to the list of functions.
    fileprivate static let toolsBefore = """
        ## Tools
        You have access to a set of tools you can use to answer the user's question.
        You can invoke functions by writing a "<\(DSMLTag.mark)function_calls>" block like the following as part of \
        your reply to the user:
        <\(DSMLTag.mark)function_calls>
        <\(DSMLTag.mark)invoke name="$FUNCTION_NAME">
        <\(DSMLTag.mark)parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</\(DSMLTag.mark)parameter>
        ...
        </\(DSMLTag.mark)invoke>
        <\(DSMLTag.mark)invoke name="$FUNCTION_NAME2">
        ...
        </\(DSMLTag.mark)invoke>
        </\(DSMLTag.mark)function_calls>
        String and scalar parameters should be specified as is without any escaping or quotes, while lists and \
        objects should use JSON format. The "string" attribute should be set to "true" for string type parameters \
        and "false" for other types (numbers, booleans, arrays, objects).
        If the thinking_mode is enabled, then after function results you should strongly consider outputting a \
        thinking block. Here is an example:
        <\(DSMLTag.mark)function_calls>
        ...
        </\(DSMLTag.mark)function_calls>
        <function_results>
        ...
        </function_results>
        <think>...thinking about results</think>
        Here are the functions available in JSONSchema format:
        <functions>

        """

    fileprivate static let toolsAfter = "\n</functions>\n"
}
