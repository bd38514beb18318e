import JSON

/// Renders DeepSeek-V4's conversations, with thinking, tools, tasks and reminders, as one of its two encoders does.
///
/// The encoder of the checkpoints is `encoding_dsv4.py`; the library `deepseek-recipe` is later. They differ in the
/// texts of reasoning efforts, in the reasoning of earlier answers, in an empty line within calls without arguments, in
/// the place of reminders and system messages in the middle, and in conversations that end with an answer.
///
/// Three differences from the first are intended: a system message after a user's is rendered before the assistant's
/// mark, which would otherwise be missing; a developer message counts as a system message where a user's is to be
/// answered, instead of being dropped from some prompts; and a task is kept where a user's message is merged.
struct DeepSeekV4Chat {
    private typealias Mark = ChatFormat.Mark

    /// Messages that are rendered as one: a user's text and the tool results around it, or one other message.
    private struct Turn {
        /// A piece of a user's turn.
        enum Part {
            case text(String)
            case result(String, call: String?)
        }

        var message: ChatMessage
        var parts: [Part] = []

        var isUser: Bool { !parts.isEmpty }
    }

    private let options: ChatOptions
    private let isRecipe: Bool
    private let turns: [Turn]
    /// The index of the last turn of a user, or -1.
    private let lastUser: Int
    private var prompt = ChatPrompt()

    /// - Parameter isRecipe: whether the prompt is that of `deepseek-recipe`.
    static func render(
        _ messages: [ChatMessage], _ options: ChatOptions, isRecipe: Bool
    ) throws(ChatError) -> ChatPrompt {
        for (index, message) in messages.enumerated() where message.role == .developer && message.content.isEmpty {
            throw .invalidMessage(index: index, problem: "a developer message needs content")
        }
        var chat = DeepSeekV4Chat(messages, options, isRecipe: isRecipe)
        chat.render()
        return chat.prompt
    }

    private init(_ messages: [ChatMessage], _ options: ChatOptions, isRecipe: Bool) {
        (self.options, self.isRecipe) = (options, isRecipe)
        // The library begins an answer to system messages alone; the other encoder does not.
        let keepsRoles = isRecipe && messages.allSatisfy { $0.role == .system }
        let given = messages.enumerated().map { ChatTurn(index: $0.offset, message: $0.element) }
        var messages = keepsRoles ? messages : given.withRolesResolved.map(\.message)
        let needsSystem = !options.tools.isEmpty || options.responseFormat != nil
        if isRecipe {
            let system = messages.filter { $0.role == .system }
            messages.removeAll { $0.role == .system }
            if !system.isEmpty || needsSystem {
                messages.insert(ChatMessage(.system, system.map(\.content).joined(separator: "\n\n")), at: 0)
            }
        } else if needsSystem, messages.first?.role != .system {
            messages.insert(ChatMessage(.system, ""), at: 0)
        }
        turns = Self.sorted(Self.merged(messages, isRecipe: isRecipe))
        lastUser = turns.lastIndex(where: \.isUser) ?? -1
    }

    /// Joins messages of users, results and, before an answer, system messages to turns.
    private static func merged(_ messages: [ChatMessage], isRecipe: Bool) -> [Turn] {
        var turns: [Turn] = []
        for message in messages {
            let isAfterUser = turns.last.map { $0.isUser && $0.message.task == nil } ?? false
            var isNew = !isAfterUser
            let part: Turn.Part
            switch message.role {
            case .user, .developer: part = .text(message.content)
            case .tool:
                part = .result(message.content, call: message.toolCallID)
                if isRecipe, case .text = turns.last?.parts.last { isNew = true }
            case .system where isAfterUser && message.content.isEmpty && message.task == nil: continue
            case .system where isAfterUser: part = .text(message.content)
            case .system, .assistant, .latestReminder:
                turns.append(Turn(message: message))
                continue
            }
            if isNew {
                turns.append(Turn(message: message, parts: [part]))
            } else {
                turns[turns.count - 1].parts.append(part)
                turns[turns.count - 1].message.task = message.task
            }
        }
        return turns
    }

    /// Puts the results of each turn into the order of the calls before it; those of unknown calls come first.
    private static func sorted(_ turns: [Turn]) -> [Turn] {
        var turns = turns
        var order: [JSONKey: Int] = [:]
        for place in turns.indices {
            if !turns[place].message.toolCalls.isEmpty {
                order = [:]
                for (index, call) in turns[place].message.toolCalls.enumerated() {
                    if let id = call.id { order[JSONKey(id)] = index }
                }
            }
            func rank(_ part: Turn.Part) -> Int? {
                guard case .result(_, let call) = part else { return nil }
                return call.flatMap { order[JSONKey($0)] } ?? 0
            }
            let places = turns[place].parts.indices.filter { rank(turns[place].parts[$0]) != nil }
            // Sorting must keep the order of equals.
            let results = places.sorted {
                (rank(turns[place].parts[$0]) ?? 0, $0) < (rank(turns[place].parts[$1]) ?? 0, $1)
            }.map { turns[place].parts[$0] }
            for (index, result) in zip(places, results) { turns[place].parts[index] = result }
        }
        return turns
    }

    private mutating func render() {
        prompt.template(Mark.begin)
        if options.thinking { prompt.template(effortText) }
        for place in turns.indices {
            let turn = turns[place]
            let hasTask = place > 0 && turns[place - 1].message.task != nil
            if turn.message.role == .assistant {
                let showsReasoning = !hasTask && showsReasoning(at: place)
                if isRecipe, !hasTask { appendOpening(thinks: showsReasoning) }
                appendAssistant(turn.message, at: place, showsReasoning: showsReasoning)
            } else {
                append(turn, at: place)
            }
            appendTransition(after: place)
        }
        if isRecipe, !options.continuesFinalMessage, turns.last?.message.task == nil {
            appendOpening(thinks: options.thinking)
        }
    }

    private mutating func append(_ turn: Turn, at place: Int) {
        if turn.isUser {
            prompt.template(Mark.user)
            for (index, part) in turn.parts.enumerated() {
                if index > 0 { prompt.template("\n\n") }
                switch part {
                case .text(let text): prompt.text(text)
                case .result(let text, _):
                    prompt.template("<tool_result>")
                    prompt.text(text)
                    prompt.template("</tool_result>")
                }
            }
            return
        }
        // A reminder after the assistant's mark does not end the reasoning that the mark begins.
        let startsInReasoning = prompt.startsInReasoning
        if turn.message.role == .latestReminder { prompt.template(Mark.latestReminder) }
        prompt.text(turn.message.content)
        if turn.message.role == .latestReminder { prompt.startsInReasoning = startsInReasoning }
        if place == 0, turn.message.role == .system {
            prompt.appendRequirements(of: options, toolsBefore: Self.toolsBefore, toolsAfter: Self.toolsAfter)
        }
    }

    private mutating func appendAssistant(_ message: ChatMessage, at place: Int, showsReasoning: Bool) {
        if showsReasoning {
            prompt.text(message.reasoning ?? "")
            prompt.template(Mark.thinkEnd)
        }
        prompt.text(message.content)
        prompt.append(message.toolCalls, in: .toolCalls, hasEmptyLine: !isRecipe)
        if !isContinued(place) { prompt.template(Mark.end) }
    }

    private func isContinued(_ place: Int) -> Bool { options.continuesFinalMessage && place == turns.count - 1 }

    /// Returns whether the reasoning of an answer is rendered. With tools all reasoning is; without, the checkpoints'
    /// encoder renders that after the last user, and the library that of the answer to continue. The first does so in
    /// thinking mode only, the second where there is reasoning.
    private func showsReasoning(at place: Int) -> Bool {
        if !isRecipe { return options.thinking && (!options.tools.isEmpty || place > lastUser) }
        return turns[place].message.reasoning != nil && (!options.tools.isEmpty || isContinued(place))
    }

    /// Appends what makes the model continue after a turn: the mark of its task, or the assistant's.
    private mutating func appendTransition(after place: Int) {
        let next = place + 1 < turns.count ? turns[place + 1].message.role : nil
        guard next == nil || next == .assistant || next == .latestReminder else { return }
        if let task = turns[place].message.task {
            if task == .action { prompt.template(Mark.assistant + (options.thinking ? Mark.think : Mark.thinkEnd)) }
            prompt.template("<｜\(task.rawValue)｜>")
        } else if turns[place].isUser, !isRecipe {
            appendOpening(thinks: options.thinking && (!options.tools.isEmpty || place >= lastUser))
        }
    }

    private mutating func appendOpening(thinks: Bool) {
        prompt.template(Mark.assistant + (thinks ? Mark.think : Mark.thinkEnd))
    }

    /// The text that asks for the effort of the request, in thinking mode.
    private var effortText: String {
        switch (options.effort, isRecipe) {
        case (.max, true): Self.beyondMaximum
        case (.max, false), (.xhigh, _), (nil, true), (.medium, true), (.high, true): Self.absoluteMaximum
        case (nil, false), (.medium, false), (.high, false), (.minimal, _), (.low, _): ""
        }
    }
}

extension DeepSeekV4Chat {
    private static let absoluteMaximum = """
        Reasoning Effort: Absolute maximum with no shortcuts permitted.
        You MUST be very thorough in your thinking and comprehensively decompose the problem to resolve the root \
        cause, rigorously stress-testing your logic against all potential paths, edge cases, and adversarial scenarios.
        Explicitly write out your entire deliberation process, documenting every intermediate step, considered \
        alternative, and rejected hypothesis to ensure absolutely no assumption is left unchecked.


        """

    private static let beyondMaximum = """
        Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.
        You MUST reason with the utmost depth and rigor, leaving absolutely nothing to chance: exhaustively decompose \
        the problem into its most fundamental components, trace every causal chain to its root, and resolve the \
        underlying cause rather than any surface symptom.
        Do not stop reasoning until you have independently verified the solution from multiple angles and are certain \
        that no assumption remains unchecked and no error remains undiscovered.


        """

    /// Describes tools to the model, up to the list of functions.
    private static let toolsBefore = """
        ## Tools

        You have access to a set of tools to help answer the user's question. You can invoke tools by writing a \
        "<\(DSMLTag.mark)tool_calls>" block like the following:

        <\(DSMLTag.mark)tool_calls>
        <\(DSMLTag.mark)invoke name="$TOOL_NAME">
        <\(DSMLTag.mark)parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</\(DSMLTag.mark)parameter>
        ...
        </\(DSMLTag.mark)invoke>
        <\(DSMLTag.mark)invoke name="$TOOL_NAME2">
        ...
        </\(DSMLTag.mark)invoke>
        </\(DSMLTag.mark)tool_calls>

        String parameters should be specified as is and set `string="true"`. For all other types (numbers, booleans, \
        arrays, objects), pass the value in JSON format and set `string="false"`.

        If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning inside \
        <think>...</think> BEFORE any tool calls or final response.

        Otherwise, output directly after </think> with tool calls or final response.

        ### Available Tool Schemas


        """

    private static let toolsAfter = """


        You MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.

        """
}
