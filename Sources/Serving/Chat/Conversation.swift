import Grammar
import Inference
import JSON
import Tokenization

/// A conversation to answer, and what its request asks of the answer.
///
/// Each dialect of the chat route (`/v1/chat/completions`, `/v1/messages`, `/v1/responses`) reads its own members into
/// one of these; everything after that is the same for all of them.
struct Conversation: Sendable {
    /// A message, and its place in the request, such as `messages[2]`, for errors.
    struct Message: Sendable {
        var message: ChatMessage
        var path: String

        init(_ message: ChatMessage, at path: String) {
            self.message = message
            self.path = path
        }
    }

    var messages: [Message]
    /// The member of the request that has the messages, for errors.
    var messagesName = "messages"
    /// The tools that the request describes.
    var tools: [ChatTool] = []
    var toolChoice = ToolChoice.auto
    /// True if the answer may have more than one tool call.
    var allowsParallelCalls = true
    /// True if the model is to reason; `nil` for the model's default.
    var thinking: Bool?
    /// The member of the request that says whether the model is to reason; `nil` if none does.
    var thinkingField: String?
    /// True if the prompt has the reasoning of all earlier answers, where the format has a switch for it.
    var keepsReasoning = false
    /// The effort of reasoning; `nil` for the model's default.
    var effort: EffortField?
    /// True if the last message is the beginning of the answer.
    var continuesFinalMessage = false

    /// The tools that the prompt offers.
    var offeredTools: [ChatTool] { toolChoice == .none ? [] : tools }
}

/// The rule by which the model chooses among tools.
enum ToolChoice: Sendable, Equatable {
    case auto
    case none
    case required
    /// The answer is a call of the tool with this name.
    case named(String)

    /// Creates a rule from OpenAI's word for it; `nil` if it is none.
    init?(word: String) {
        switch word {
        case "auto": self = .auto
        case "none": self = .none
        case "required": self = .required
        default: return nil
        }
    }
}

/// An effort of reasoning that a request asks for.
struct EffortField: Sendable {
    /// OpenAI's name of the level, such as `high`.
    var level: String
    /// The member that has the level, for errors.
    var path: String
}

extension ChatFormat {
    /// The levels of effort that mean what the model does when it reasons. Where there is one way of reasoning, it
    /// stands for the lower levels too, as DeepSeek's own interface has it.
    fileprivate var reasoningEfforts: [String] {
        switch self {
        case .deepSeekV3: []
        case .deepSeekR1, .deepSeekV31, .deepSeekV32, .glm5, .glm51: ["low", "medium", "high"]
        case .glm52: ["max"]
        case .deepSeekV4, .deepSeekV4Recipe: ReasoningEffort.allCases.map(\.rawValue)
        }
    }
}

extension Conversation {
    /// Returns the chat format of the model.
    ///
    /// - Throws: an error if no format is known for the model.
    func format(_ service: TextService) throws(RequestError) -> ChatFormat {
        do {
            return try service.chatFormat.get()
        } catch {
            throw .invalid(messagesName, "\(error); use /v1/completions with a whole prompt")
        }
    }

    /// Returns the prompt of the conversation.
    func prompt(in format: ChatFormat) throws(RequestError) -> ChatPrompt {
        let thinks = try thinks(in: format)
        let level = effort.flatMap { ReasoningEffort(rawValue: $0.level) }
        var options = ChatOptions(thinking: thinks, effort: format.isV4 ? level : nil)
        options.continuesFinalMessage = continuesFinalMessage
        options.keepsReasoning = keepsReasoning
        options.tools = offeredTools
        do {
            return try format.render(messages.map(\.message), options)
        } catch {
            throw requestError(error)
        }
    }

    /// Returns whether the model is to reason. The switch of the request decides; without it an effort does. An effort
    /// of `none` contradicts a switch that is on.
    private func thinks(in format: ChatFormat) throws(RequestError) -> Bool {
        if format.alwaysThinks { try refuseSilence() }
        guard let effort else { return thinking ?? format.thinksByDefault }
        let isOn = effort.level != "none"
        guard !isOn || format.reasoningEfforts.contains(effort.level) else {
            let known = (["none"] + format.reasoningEfforts).joined(separator: ", ")
            throw .invalid(
                effort.path, "\(effort.path) '\(effort.level.prefix(32))' is not supported by this model; use \(known)",
                code: "unsupported_value")
        }
        if thinking == true, !isOn {
            throw .invalid(effort.path, "\(effort.path) is 'none', but thinking is switched on")
        }
        return thinking ?? isOn
    }

    /// Refuses a request that the model is not to reason, for models that always do.
    private func refuseSilence() throws(RequestError) {
        let field = thinking == false ? thinkingField : effort?.level == "none" ? effort?.path : nil
        guard let field else { return }
        throw .invalid(
            field, "\(field): this model always reasons; leave it out", code: "unsupported_value")
    }

    /// Returns the error for a conversation that has no prompt, with the names of the request.
    private func requestError(_ error: ChatError) -> RequestError {
        switch error {
        case .invalidMessage(let index, let problem):
            let path = messages.indices.contains(index) ? messages[index].path : messagesName
            return .invalid(path, "\(path): \(problem)")
        case .invalidTool, .unsupported("tools", _): return .invalid("tools", error.description)
        case .unsupported("thinking", _): return .invalid("thinking", error.description)
        case .noMessages, .unsupported: return .invalid(messagesName, error.description)
        case .unknownFormat: return .invalid(nil, error.description)
        }
    }
}

/// A request of a dialect of the chat route that was checked.
struct ChatRequest: Sendable {
    let requests: [TextRequest]
    let wantsLogProbs: Bool
    /// The markup of the tool calls to look for; `nil` if no tools are offered.
    let toolCalls: ToolCallMarkup?
    /// True if the answer may have more than one tool call.
    let allowsParallelCalls: Bool
    /// True if the answer begins inside the model's reasoning.
    let startsInReasoning: Bool
    /// True if the answer shows reasoning separately from content.
    let separatesReasoning: Bool
    /// True if the answer is sent while it is generated.
    let isStreamed: Bool

    /// The estimated memory in bytes that the request takes; see `TextRequest.memory`.
    var memory: Int { requests.reduce(0) { $0 + $1.memory(isCollected: !isStreamed) } }

    /// The settings by which an answer is sampled and shown.
    struct Options {
        var sampling: SamplingFields
        var logProbs: LogProbOptions?
        var separatesReasoning = true
        var cacheSalt: String?
        /// The id by which other requests can abort this one.
        var id: String?
        /// The other server for each choice, where a router has sent the request to two; `nil` if it has not.
        var bootstraps: [Bootstrap]?
        /// The part of the work that a router has given to another server.
        var transferParams: KVTransferParams?
        var isStreamed: Bool
    }

    init(_ conversation: Conversation, _ options: Options, service: TextService) throws(RequestError) {
        let format = try conversation.format(service)
        var sampling = options.sampling
        let tools = conversation.offeredTools
        toolCalls = tools.isEmpty ? nil : format.toolCalls(tools)
        allowsParallelCalls = conversation.allowsParallelCalls
        separatesReasoning = options.separatesReasoning && format.canThink
        isStreamed = options.isStreamed
        wantsLogProbs = options.logProbs != nil
        let prompt = try conversation.prompt(in: format)
        startsInReasoning = prompt.startsInReasoning
        let markup = ToolCallSource.Markup(format.toolCalls(tools))
        try conversation.checkToolNames(in: markup)
        sampling.form = try conversation.form(in: markup, besides: sampling.form)
        if let form = sampling.form {
            if conversation.continuesFinalMessage {
                throw .invalid(form.field, "\(form.field) is not supported where the answer continues a message")
            }
            if prompt.startsInReasoning { sampling.form?.source = .afterReasoning(form.source) }
        }
        let kept = format.keptTokens(service.tokenizer)
        let tokens = try service.tokens(of: prompt, conversation.messagesName)
        // Stop strings apply to the answer, not to the reasoning before it, which the model may open itself.
        let reasoning = format.reasoningBeginning.map {
            TextRequest.Reasoning(beginning: $0, ends: format.reasoningEnds, isOpen: prompt.startsInReasoning)
        }
        let asked = sampling.requests(prompt: tokens, logProbs: options.logProbs, cacheSalt: options.cacheSalt).map {
            var request = $0
            request.keptTokens = kept
            request.reasoning = reasoning
            request.ids = options.id.map { [$0] } ?? []
            return request
        }
        requests = asked.bootstrapped(options.bootstraps).with(options.transferParams)
    }
}
