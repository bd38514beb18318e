package import JSON

/// A backend is an interface that a serving benchmark can use, named after the engine that has it.
package enum ServingBackend: String, Sendable, CaseIterable {
    case braid, sglang
    case sglangNative = "sglang-native"
    case sglangCompletions = "sglang-oai"
    case vllm

    /// Whether it is SGLang's own `/generate` rather than OpenAI's `/v1/completions`.
    private var isNative: Bool { self != .sglangCompletions && self != .vllm }

    package var path: String { isNative ? "/generate" : "/v1/completions" }
    package var defaultPort: Int { self == .vllm ? 8000 : 30000 }

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
    package func body(prompt: [Int32], maxTokens: Int, _ options: Options) -> JSONValue {
        let tokens = JSONValue.array(prompt.map { .integer(Int($0)) })
        let sampling: [JSONMember] = [
            JSONMember("temperature", .integer(0)),
            JSONMember(isNative ? "max_new_tokens" : "max_tokens", .integer(maxTokens)),
            JSONMember("ignore_eos", .bool(options.ignoresEndOfText)),
        ]
        var members = [JSONMember("stream", .bool(options.streams))]
        if isNative {
            members += [JSONMember("input_ids", tokens), JSONMember("sampling_params", .object(sampling))]
        } else {
            members += [JSONMember("model", .string(options.model)), JSONMember("prompt", tokens)] + sampling
            if options.streams { members.append(JSONMember("stream_options", .fields(["include_usage": .bool(true)]))) }
        }
        members.removeAll { member in options.extra.contains { $0.key == member.key } }
        return .object(members + options.extra)
    }

    /// Reads an event of a stream, or a whole answer, into the outcome of its request.
    ///
    /// `/generate` counts tokens in each event. `/v1/completions` returns text: an event with text counts as a token,
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
        if streams, choices.first?["text"]?.string?.isEmpty == false {
            outcome.receive(total: outcome.outputTokens + 1, at: seconds)
        }
        if let total = answer["usage"]?["completion_tokens"]?.integer { outcome.finish(total: total, at: seconds) }
    }
}
