import Inference
import JSON

/// A request to `/generate`, SGLang's own interface, that was checked.
struct GenerateRequest: Sendable {
    /// The requests to the engine: `n` for each prompt, in the order of the prompts.
    let requests: [TextRequest]
    /// The id of each of `requests`.
    let ids: [String]
    /// True if the answer is a list: for a list of prompts, or more than one choice.
    let isBatch: Bool
    let returnsLogProbs: Bool
    /// True if log-probabilities include the text of their tokens.
    let returnsTokenText: Bool
    let streams: Bool
    /// The name of the member that holds the prompt.
    let promptName: String

    /// The estimated memory in bytes that the request takes; see `TextRequest.memory`.
    var memory: Int { requests.reduce(0) { $0 + $1.memory(isCollected: !streams) } }

    init(_ fields: RequestFields, service: TextService, configuration: ServerConfiguration) throws(RequestError) {
        let limits = configuration.requests
        try FieldTable.check(fields, at: .generate)
        if let sampling = try fields.object("sampling_params") { try FieldTable.check(sampling, at: .sampling) }
        let sampling = try SamplingFields(
            fields.object("sampling_params") ?? .empty, names: .generate, minMaxTokens: 0, defaultMaxTokens: 128,
            service: service, limits: limits)
        for name in ["text", "input_ids"] {
            try fields.checkPrompts(name, choices: sampling.choices, most: limits.maxSequences)
        }
        let (prompts, isList) = try Self.prompts(fields, service: service)
        promptName = fields.value("text") == nil ? "input_ids" : "text"
        isBatch = isList || sampling.choices > 1
        streams = try fields.bool("stream") ?? false
        returnsLogProbs = try fields.bool("return_logprob") ?? false
        returnsTokenText = try fields.bool("return_text_in_logprobs") ?? false
        let start = try fields.integer("logprob_start_len", in: -1...Int.max) ?? -1
        let most = min(limits.maxTopLogProbs, service.engine.limits.maxTopLogProbs)
        let topCount = try fields.integer("top_logprobs_num", in: 0...most) ?? 0
        for prompt in prompts where returnsLogProbs && start >= prompt.count {
            throw .invalid(
                "logprob_start_len",
                "logprob_start_len is \(start), but the prompt has \(prompt.count) tokens; use -1 for none of them")
        }
        let scores =
            returnsLogProbs ? LogProbOptions(topCount: topCount, promptStart: start < 0 ? nil : start) : nil
        let salt = try fields.cacheSalt(atMost: limits.maxCacheSaltBytes)
        let requests = prompts.flatMap { sampling.requests(prompt: $0, logProbs: scores, cacheSalt: salt) }
        let whole = try Self.wholeID(fields)
        ids = try Self.ids(fields, whole, count: requests.count)
        let named = zip(requests, ids).map { $0.named($1, of: whole) }
        self.requests = named.bootstrapped(try service.bootstraps(of: fields, count: named.count)).map { request in
            var request = request
            // SGLang's routers put the scores of the prefill server's answer before those of the decode server's.
            if request.bootstrap != nil, service.transfers?.mode == .decode { request.logProbs?.promptStart = nil }
            return request
        }
    }

    /// Returns the tokens of each prompt. A prompt is given by `text` or `input_ids`, as one or as a list.
    private static func prompts(
        _ fields: RequestFields, service: TextService
    ) throws(RequestError) -> (prompts: [[Int32]], isList: Bool) {
        switch (fields.value("text"), fields.value("input_ids")) {
        case (.some, .some): throw .invalid("input_ids", "give either text or input_ids, not both")
        case (nil, nil): throw .invalid("text", "there is no prompt: give text or input_ids")
        case (.some(let value), nil):
            if let text = value.string { return ([try service.prompt(text, "text")], false) }
            guard let elements = value.array, !elements.isEmpty else {
                throw .invalid("text", "text must be a string or a list of at least one string")
            }
            var prompts: [[Int32]] = []
            for (index, element) in elements.enumerated() {
                guard let text = element.string else {
                    throw .invalid("text", "text[\(index)] must be a string, not \(element.kindName)")
                }
                prompts.append(try service.prompt(text, "text[\(index)]"))
            }
            return (prompts, true)
        case (nil, .some(let value)):
            let vocabulary = service.engine.limits.vocabularySize
            guard let elements = value.array, let first = elements.first else {
                throw .invalid("input_ids", "input_ids must be a list of token ids, or a list of such lists")
            }
            guard case .array = first else {
                return (
                    [try RequestFields.tokens(elements, path: "input_ids", vocabularySize: vocabulary)], false
                )
            }
            var prompts: [[Int32]] = []
            for (index, element) in elements.enumerated() {
                guard let ids = element.array else {
                    throw .invalid("input_ids", "input_ids[\(index)] must be a list, not \(element.kindName)")
                }
                prompts.append(
                    try RequestFields.tokens(ids, path: "input_ids[\(index)]", vocabularySize: vocabulary))
            }
            return (prompts, true)
        }
    }

    /// The member that gives ids, if there is one.
    private static func idMember(_ fields: RequestFields) -> (name: String, value: JSONValue)? {
        for name in RequestFields.idNames { if let value = fields.value(name) { return (name, value) } }
        return nil
    }

    /// Returns the id that the request gives for all of its answers.
    private static func wholeID(_ fields: RequestFields) throws(RequestError) -> String? {
        guard let (name, value) = idMember(fields), let id = value.string, !id.isEmpty else { return nil }
        try RequestFields.checkID(id, name)
        return id
    }

    /// Returns the id of each answer. The request gives one id, or one for each answer; those that are absent or empty
    /// are random.
    private static func ids(_ fields: RequestFields, _ whole: String?, count: Int) throws(RequestError) -> [String] {
        if let whole { return count == 1 ? [whole] : (0..<count).map { "\(whole)_\($0)" } }
        guard let (name, value) = idMember(fields), value.string == nil else {
            return (0..<count).map { _ in Envelope.randomDigits() }
        }
        let texts = value.array?.compactMap(\.string) ?? []
        guard texts.count == count, value.array?.count == count else {
            throw .invalid(name, "\(name) must be a string, or a list of \(count) strings, one for each answer")
        }
        for text in texts { try RequestFields.checkID(text, name) }
        let ids = texts.map { $0.isEmpty ? Envelope.randomDigits() : $0 }
        guard Set(ids.map(JSONKey.init)).count == count else {
            throw .invalid(name, "\(name) has the same id twice; give each answer its own")
        }
        return ids
    }
}

extension TextRequest {
    /// Returns this request with an id, which belongs to the request with the id `whole` if that has one.
    fileprivate func named(_ id: String, of whole: String?) -> TextRequest {
        var request = self
        request.ids = [id] + (whole.map { $0 == id ? [] : [$0] } ?? [])
        return request
    }
}
