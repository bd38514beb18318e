import JSON

/// Renders DeepSeek-V3.2's conversations, with thinking and tools, as its `encoding_dsv32.py` does.
///
/// Two differences are deliberate. Results of tools go to the calls that their ids name, if they have ids. And a
/// conversation with fewer results than calls is refused, because its rendering would lack the point where the model
/// continues.
enum DeepSeekV32Chat {
    static func render(_ messages: [ChatMessage], _ options: ChatOptions) throws(ChatError) -> ChatPrompt {
        var turns = messages.enumerated().map { Turn(index: $0.offset, message: $0.element) }
        if options.thinking {
            let lastUser = lastUser(in: turns)
            turns = turns.enumerated().compactMap {
                $0.element.withoutReasoning(unlessAt: $0.offset, orAfter: lastUser)
            }
        }
        if !options.tools.isEmpty || options.responseFormat != nil, turns.first?.message.role != .system {
            turns.insert(Turn(index: 0, message: ChatMessage(.system, "")), at: 0)
        }
        var renderer = Renderer(turns: turns, options: options, lastUser: lastUser(in: turns))
        return try renderer.render()
    }

    /// Returns the index of the last message that a person wrote, or -1.
    private static func lastUser(in turns: [Turn]) -> Int {
        turns.lastIndex { $0.message.role == .user || $0.message.role == .developer } ?? -1
    }

    /// Is a message with its index in the request, for errors.
    fileprivate struct Turn {
        let index: Int
        var message: ChatMessage

        /// Returns the rest of a message in thinking mode: before the last user message, an assistant's reasoning and a
        /// developer's whole message are dropped.
        func withoutReasoning(unlessAt place: Int, orAfter lastUser: Int) -> Turn? {
            if place >= lastUser { return self }
            if message.role == .developer { return nil }
            var turn = self
            turn.message.reasoning = nil
            return turn
        }

        func invalid(_ problem: String) -> ChatError { .invalidMessage(index: index, problem: problem) }
    }
}

private struct Renderer {
    typealias Mark = ChatFormat.Mark

    let turns: [DeepSeekV32Chat.Turn]
    let options: ChatOptions
    let lastUser: Int
    var prompt = ChatPrompt()

    init(turns: [DeepSeekV32Chat.Turn], options: ChatOptions, lastUser: Int) {
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
                if place == 0 { appendRequirements() }
            case .user:
                prompt.template(Mark.user)
                prompt.text(message.content)
                prompt.template(Mark.assistant + thinkMark(place == lastUser))
            case .developer:
                guard !message.content.isEmpty else { throw turns[place].invalid("a developer message needs content") }
                prompt.template(Mark.user + "\n\n# The user's message is: ")
                prompt.text(message.content)
                prompt.template(Mark.assistant + thinkMark(place == lastUser))
            case .assistant:
                try appendAssistant(at: place)
                place += try appendResults(after: place)
            case .tool: throw turns[place].invalid("a tool message must follow the assistant's call that it answers")
            }
            place += 1
        }
        return prompt
    }

    private func thinkMark(_ isCurrent: Bool) -> String {
        isCurrent && options.thinking ? Mark.think : Mark.thinkEnd
    }

    /// Appends tools and response format, after the first system message.
    private mutating func appendRequirements() {
        if !options.tools.isEmpty {
            prompt.template("\n\n" + DeepSeekV32Chat.toolsBefore)
            prompt.text(options.tools.map(\.function.pythonText).joined(separator: "\n"))
            prompt.template(DeepSeekV32Chat.toolsAfter)
        }
        if let format = options.responseFormat {
            prompt.template(
                "\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n")
            prompt.text(format.pythonText)
        }
    }

    private mutating func appendAssistant(at place: Int) throws(ChatError) {
        let message = turns[place].message
        if options.thinking, place > lastUser {
            let reasoning = message.reasoning ?? ""
            guard !reasoning.isEmpty || !message.toolCalls.isEmpty else {
                throw turns[place].invalid(
                    "in thinking mode an assistant's message after the last user message needs reasoning or tool calls")
            }
            prompt.text(reasoning)
            prompt.template(Mark.thinkEnd)
        }
        prompt.text(message.content)
        if !message.toolCalls.isEmpty { try appendCalls(of: turns[place]) }
        if !(options.continuesFinalMessage && place == turns.count - 1) { prompt.template(Mark.end) }
    }

    private mutating func appendCalls(of turn: DeepSeekV32Chat.Turn) throws(ChatError) {
        let mark = DSMLTag.mark
        prompt.template("\n\n<\(mark)function_calls>\n")
        for (index, call) in turn.message.toolCalls.enumerated() {
            let arguments = try arguments(of: call, at: index, in: turn)
            prompt.template("\(index > 0 ? "\n" : "")<\(mark)invoke name=\"")
            prompt.text(call.name)
            prompt.template("\">\n")
            for (index, argument) in arguments.enumerated() {
                prompt.template("\(index > 0 ? "\n" : "")<\(mark)parameter name=\"")
                prompt.text(argument.key)
                prompt.template("\" string=\"\(argument.value.string != nil)\">")
                prompt.text(argument.value.string ?? argument.value.pythonText)
                prompt.template("</\(mark)parameter>")
            }
            prompt.template("\n</\(mark)invoke>")
        }
        prompt.template("\n</\(mark)function_calls>")
    }

    private func arguments(
        of call: ChatToolCall, at index: Int, in turn: DeepSeekV32Chat.Turn
    ) throws(ChatError) -> [JSONMember] {
        let problem = "the arguments of tool call \(index) are no JSON object"
        let value: JSONValue
        do {
            value = try JSONValue(parsing: call.arguments)
        } catch {
            throw turn.invalid("\(problem): \(error)")
        }
        guard let members = value.object else { throw turn.invalid("\(problem) but \(value.kindName)") }
        return members
    }

    /// Renders the tool messages that follow an assistant's calls.
    ///
    /// - Returns: their number; it may be 0, for calls whose results were never sent.
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
        prompt.template("\n</function_results>\n\n" + thinkMark(place + results.count >= lastUser))
        return results.count
    }

    /// Returns results in the order of the calls: by id if all have distinct ids, else unchanged.
    private func inOrder(
        _ results: [DeepSeekV32Chat.Turn], of calls: [ChatToolCall]
    ) throws(ChatError) -> [DeepSeekV32Chat.Turn] {
        let ids = calls.compactMap(\.id)
        guard Set(ids).count == calls.count, results.allSatisfy({ $0.message.toolCallID != nil }) else {
            return results
        }
        var ordered: [DeepSeekV32Chat.Turn?] = Array(repeating: nil, count: calls.count)
        for result in results {
            let id = result.message.toolCallID ?? ""
            guard let place = ids.firstIndex(of: id), ordered[place] == nil else {
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
