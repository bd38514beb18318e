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
        let prompts = try GeneratePrompts(fields)
        let count = prompts.count
        // Lists are as long as the list of prompts, so its length is checked before they are read.
        try RequestFields.checkCount(count, of: prompts.name, choices: 1, most: limits.maxSequences)
        let sampling = try Self.sampling(fields, prompts: count, service: service, limits: limits)
        let choices = sampling.first?.choices ?? 1
        try RequestFields.checkCount(count, of: prompts.name, choices: choices, most: limits.maxSequences)
        let tokens = try prompts.tokens(service: service)
        promptName = prompts.name
        isBatch = prompts.isList || choices > 1
        streams = try fields.bool("stream") ?? false
        returnsTokenText = try fields.bool("return_text_in_logprobs") ?? false
        let scores = try Self.scores(fields, of: tokens, service: service, limits: limits)
        let salts = try fields.each("cache_salt", of: count) { (value, path) throws(RequestError) in
            try RequestFields.cacheSalt(value, path: path, atMost: limits.maxCacheSaltBytes)
        }
        let requests = tokens.indices.flatMap {
            sampling[$0].requests(prompt: tokens[$0], logProbs: scores[$0], cacheSalt: salts?[$0])
        }
        let names = try Self.ids(fields, prompts: count, choices: choices)
        ids = names.map(\.id)
        let named = zip(requests, names).map { $0.named($1.id, of: $1.whole) }
        self.requests = named.bootstrapped(try service.bootstraps(of: fields, count: named.count)).map { request in
            var request = request
            // SGLang's routers put the scores of the prefill server's answer before those of the decode server's.
            if request.bootstrap != nil, service.transfers?.mode == .decode { request.logProbs?.promptStart = nil }
            return request
        }
    }

    /// Returns the sampling parameters of each prompt, all with the same number of choices.
    private static func sampling(
        _ fields: RequestFields, prompts count: Int, service: TextService, limits: RequestLimits
    ) throws(RequestError) -> [SamplingFields] {
        let name = "sampling_params"
        let read = { (value: JSONValue, path: String) throws(RequestError) -> SamplingFields in
            let fields = try RequestFields(value, path: path)
            try FieldTable.check(fields, at: .sampling)
            return try SamplingFields(
                fields, names: .generate, minMaxTokens: 0, defaultMaxTokens: 128, service: service, limits: limits)
        }
        guard let sampling = try fields.each(name, of: count, read) else {
            return Array(repeating: try read(.object([]), name), count: count)
        }
        let choices = sampling.map(\.choices)
        if let other = choices.firstIndex(where: { $0 != choices[0] }) {
            throw .invalid(
                "\(name)[\(other)].n",
                "\(name)[\(other)].n is \(choices[other]), but \(name)[0].n is \(choices[0]); all prompts of a request have "
                    + "the same number of answers")
        }
        guard sampling.compactMap(\.form).distinct.count <= AnswerForm.maxForms else {
            throw .invalid(
                name,
                "\(name) asks for more than \(AnswerForm.maxForms) different forms of answers, which is the most in one "
                    + "request; send several requests")
        }
        return sampling
    }

    /// Returns the log-probabilities that are wanted for each prompt; `nil` for none.
    private static func scores(
        _ fields: RequestFields, of prompts: [[Int32]], service: TextService, limits: RequestLimits
    ) throws(RequestError) -> [LogProbOptions?] {
        let count = prompts.count
        let isScored = try fields.each("return_logprob", of: count, RequestFields.bool)
        let starts = try fields.each("logprob_start_len", of: count) { (value, path) throws(RequestError) in
            (start: try RequestFields.integer(value, path: path, in: -1...Int.max), path: path)
        }
        let most = limits.maxTopLogProbs(with: service.engine.limits)
        let tops = try fields.each("top_logprobs_num", of: count) { (value, path) throws(RequestError) in
            try RequestFields.integer(value, path: path, in: 0...most)
        }
        var scores: [LogProbOptions?] = []
        for (index, prompt) in prompts.enumerated() {
            guard isScored?[index] ?? false else {
                scores.append(nil)
                continue
            }
            let (start, path) = starts?[index] ?? (-1, "")
            guard start <= prompt.count else {
                throw .invalid(
                    path, "\(path) is \(start), but the prompt has \(prompt.count) tokens; use -1 for none of them")
            }
            scores.append(
                LogProbOptions(topCount: tops?[index] ?? 0, promptStart: prompt.indices.contains(start) ? start : nil))
        }
        return scores
    }

    /// The member that gives ids, if there is one.
    private static func idMember(_ fields: RequestFields) -> (name: String, value: JSONValue)? {
        for name in RequestFields.idNames { if let value = fields.value(name) { return (name, value) } }
        return nil
    }

    /// Returns the id of each answer, and the id of several answers that it belongs to. The request gives one id for all,
    /// one for each prompt or one for each answer; those that are absent or empty are random.
    private static func ids(
        _ fields: RequestFields, prompts: Int, choices: Int
    ) throws(RequestError) -> [(id: String, whole: String?)] {
        let count = prompts * choices
        guard let (name, value) = idMember(fields), value.string != "" else {
            return (0..<count).map { _ in (Envelope.randomDigits(), nil) }
        }
        let given = value.array ?? [value]
        let texts = given.compactMap(\.string)
        guard texts.count == given.count, value.array == nil || [prompts, count].contains(texts.count) else {
            throw .invalid(name, "\(name) must be a string, or a list of \(prompts) strings, one for each prompt")
        }
        for text in texts { try RequestFields.checkID(text, name) }
        let share = count / texts.count
        let ids = texts.flatMap { text -> [(id: String, whole: String?)] in
            if text.isEmpty { return (0..<share).map { _ in (Envelope.randomDigits(), nil) } }
            return share == 1 ? [(text, nil)] : (0..<share).map { ("\(text)_\($0)", text) }
        }
        guard Set(ids.map { JSONKey($0.id) }).count == count else {
            throw .invalid(name, "\(name) has the same id twice; give each prompt its own")
        }
        // An abort by such an id would end the answers of both.
        let wholes = Set(ids.compactMap { $0.whole.map(JSONKey.init) })
        if let other = ids.first(where: { wholes.contains(JSONKey($0.id)) }) {
            throw .invalid(
                name,
                "\(name) has the id \(other.id.quotedForMessage), which an answer of another prompt gets too; give other ids"
            )
        }
        return ids
    }
}

extension TextRequest {
    /// Returns this request with its own id, and with that of all answers that it belongs to.
    fileprivate func named(_ id: String, of whole: String?) -> TextRequest {
        var request = self
        request.ids = [id] + (whole.map { [$0] } ?? [])
        return request
    }
}

/// The prompts of a request to `/generate`, which are not tokens yet: `text` or `input_ids`, one or a list.
private struct GeneratePrompts {
    /// The name of the member that holds them.
    let name: String
    let isList: Bool
    private let elements: [JSONValue]

    var count: Int { elements.count }

    init(_ fields: RequestFields) throws(RequestError) {
        switch (fields.value("text"), fields.value("input_ids")) {
        case (.some, .some): throw .invalid("input_ids", "give either text or input_ids, not both")
        case (nil, nil): throw .invalid("text", "there is no prompt: give text or input_ids")
        case (.some(let value), nil):
            name = "text"
            isList = value.string == nil
            elements = isList ? value.array ?? [] : [value]
            guard !elements.isEmpty else {
                throw .invalid(name, "text must be a string or a list of at least one string")
            }
        case (nil, .some(let value)):
            name = "input_ids"
            guard let list = value.array, let first = list.first else {
                throw .invalid(name, "input_ids must be a list of token ids, or a list of such lists")
            }
            isList = first.array != nil
            elements = isList ? list : [value]
        }
    }

    func tokens(service: TextService) throws(RequestError) -> [[Int32]] {
        var prompts: [[Int32]] = []
        for (index, element) in elements.enumerated() {
            let path = isList ? "\(name)[\(index)]" : name
            if name == "text" {
                guard let text = element.string else {
                    throw .invalid(name, "\(path) must be a string, not \(element.kindName)")
                }
                prompts.append(try service.prompt(text, path))
            } else {
                guard let ids = element.array else {
                    throw .invalid(name, "\(path) must be a list, not \(element.kindName)")
                }
                let vocabulary = service.engine.limits.vocabularySize
                prompts.append(try RequestFields.tokens(ids, path: path, vocabularySize: vocabulary))
            }
        }
        return prompts
    }
}
