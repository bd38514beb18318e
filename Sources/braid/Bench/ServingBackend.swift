package import JSON

/// A backend is an interface that a serving benchmark can use, named after the engine that has it.
package enum ServingBackend: String, Sendable, CaseIterable {
    case braid, sglang
    case sglangNative = "sglang-native"
    case sglangCompletions = "sglang-oai"
    case sglangChat = "sglang-oai-chat"
    case vllm
    case vllmChat = "vllm-chat"
    case openAI = "openai"
    case openAIChat = "openai-chat"

    /// True if it is SGLang's own `/generate` rather than a route of OpenAI's.
    private var isNative: Bool { [.braid, .sglang, .sglangNative].contains(self) }
    /// True if it is OpenAI's `/v1/chat/completions`, whose prompts are text.
    package var isChat: Bool { [.sglangChat, .vllmChat, .openAIChat].contains(self) }

    package var path: String { isNative ? "/generate" : isChat ? "/v1/chat/completions" : "/v1/completions" }
    package var defaultPort: Int { [.vllm, .vllmChat].contains(self) ? 8000 : 30000 }

    /// Options that are the same for all requests of a benchmark.
    package struct Options: Sendable {
        package var model: String
        package var streams = true
        package var ignoresEndOfText = true
        /// Members that are added to the body, in place of members with the same key.
        package var extra: [JSONMember] = []

        package init(model: String) { self.model = model }
    }

    /// Returns the body of a request. Decoding is greedy, so that repetitions do the same work.
    ///
    /// - Precondition: The prompt has a text if the interface is for chats.
    package func body(prompt: ServingPrompt, maxTokens: Int, _ options: Options) -> JSONValue {
        let tokens = JSONValue.array(prompt.tokens.map { .integer(Int($0)) })
        let sampling: [JSONMember] = [
            JSONMember("temperature", .integer(0)),
            JSONMember(isNative ? "max_new_tokens" : "max_tokens", .integer(maxTokens)),
            JSONMember("ignore_eos", .bool(options.ignoresEndOfText)),
        ]
        var members = [JSONMember("stream", .bool(options.streams))]
        if isNative {
            members += [JSONMember("input_ids", tokens), JSONMember("sampling_params", .object(sampling))]
        } else {
            members += [JSONMember("model", .string(options.model))] + sampling
            if isChat {
                let message = JSONValue.fields(["role": .string("user"), "content": .string(prompt.text!)])
                members.append(JSONMember("messages", .array([message])))
            } else {
                members.append(JSONMember("prompt", tokens))
            }
            if options.streams { members.append(JSONMember("stream_options", .fields(["include_usage": .bool(true)]))) }
        }
        members.removeAll { member in options.extra.contains { $0.key == member.key } }
        return .object(members + options.extra)
    }

    /// Reads an event of a stream, or a whole answer, into the outcome of its request.
    ///
    /// `/generate` counts tokens in each event. The other routes return text: an event with text counts as a token,
    /// as in SGLang's benchmark, until the usage at the end gives the true number. Tokens of whole answers have no
    /// times.
    ///
    /// - Throws: `CommandError` if the server reports an error, with its message, or the answer has another form.
    package func read(
        _ answer: JSONValue, streams: Bool, at seconds: Double, into outcome: inout ServingOutcome
    ) throws {
        if let error = answer["error"], !error.isNull { throw CommandError(serverMessage(of: error)) }
        if isNative {
            guard let meta = answer["meta_info"], let count = meta["completion_tokens"]?.integer else {
                throw CommandError("the answer has no meta_info.completion_tokens; is this the right --backend?")
            }
            if let reason = meta["finish_reason"], reason["type"]?.string == "abort" {
                throw CommandError(reason["message"]?.string ?? "the server aborted the request")
            }
            return streams
                ? outcome.receive(total: count, at: seconds) : outcome.finish(total: count, at: seconds)
        }
        guard let choices = answer["choices"]?.array else {
            throw CommandError("the answer has no choices; is this the right --backend?")
        }
        let delta = choices.first.map { $0["delta"] ?? $0 }
        let pieces = [delta?["text"], delta?["content"], delta?["reasoning_content"]]
        if streams, pieces.contains(where: { $0?.string?.isEmpty == false }) {
            outcome.receive(total: outcome.outputTokens + 1, at: seconds)
        }
        if let total = answer["usage"]?["completion_tokens"]?.integer { outcome.finish(total: total, at: seconds) }
    }
}
