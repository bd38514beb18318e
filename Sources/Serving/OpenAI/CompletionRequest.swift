import Inference
import JSON

/// A request to `/v1/completions` that was checked.
struct CompletionRequest: Sendable {
    /// The requests to the engine: `n` for each prompt, in the order of the prompts.
    let requests: [TextRequest]
    let choicesPerPrompt: Int
    let echoes: Bool
    /// The number of alternatives with each token; `nil` if no log-probabilities are wanted.
    let topLogProbs: Int?
    let stream: StreamFields
    /// The part of the work that a router has given to another server.
    let transferParams: KVTransferParams?

    /// The estimated memory in bytes that the request takes; see `TextRequest.memory`.
    var memory: Int { requests.reduce(0) { $0 + $1.memory(isCollected: !stream.isOn) } }

    init(_ fields: RequestFields, service: TextService, configuration: ServerConfiguration) throws(RequestError) {
        try fields.checkModel(configuration.modelNames)
        try FieldTable.check(fields, at: .completion)
        let limits = configuration.requests
        stream = try StreamFields(fields)
        echoes = try fields.bool("echo") ?? false
        topLogProbs = try fields.topLogProbs("logprobs", service: service, limits: limits)
        let sampling = try SamplingFields(
            fields, names: .openAI, minMaxTokens: 0, defaultMaxTokens: 16, service: service, limits: limits)
        choicesPerPrompt = sampling.choices
        try fields.checkPrompts("prompt", choices: sampling.choices, most: limits.maxSequences)
        let prompts = try Self.prompts(fields, service: service)
        let promptStart = echoes ? 0 : nil
        let scores = topLogProbs.map { LogProbOptions(topCount: $0, promptStart: promptStart) }
        let salt = try fields.cacheSalt(atMost: limits.maxCacheSaltBytes)
        let ids = try fields.requestID().map { [$0] } ?? []
        let asked = prompts.flatMap { sampling.requests(prompt: $0, logProbs: scores, cacheSalt: salt) }.map {
            request in
            var request = request
            request.ids = ids
            return request
        }
        transferParams = try service.transferParams(of: fields, isStreamed: stream.isOn)
        requests = asked.bootstrapped(try service.bootstraps(of: fields, count: asked.count)).with(transferParams)
    }

    /// Returns the tokens of each prompt. `prompt` is a text, a list of token ids, or a list of either.
    private static func prompts(_ fields: RequestFields, service: TextService) throws(RequestError) -> [[Int32]] {
        guard let value = fields.value("prompt") else {
            throw .invalid("prompt", "prompt is missing; give a text, a list of token ids, or a list of either")
        }
        let addsBeginning = try fields.bool("add_special_tokens") ?? true
        if let text = value.string { return [try service.prompt(text, "prompt", addingBeginning: addsBeginning)] }
        guard let elements = value.array else {
            throw .invalid("prompt", "prompt must be a text, a list of token ids, or a list of either")
        }
        guard let first = elements.first else { throw .invalid("prompt", "prompt is an empty list") }
        let vocabulary = service.engine.limits.vocabularySize
        if case .number = first {
            return [try RequestFields.tokens(elements, path: "prompt", vocabularySize: vocabulary)]
        }
        var prompts: [[Int32]] = []
        for (index, element) in elements.enumerated() {
            switch element {
            case .string(let text):
                prompts.append(try service.prompt(text, "prompt[\(index)]", addingBeginning: addsBeginning))
            case .array(let ids):
                prompts.append(
                    try RequestFields.tokens(ids, path: "prompt[\(index)]", vocabularySize: vocabulary))
            default: throw .invalid("prompt", "prompt[\(index)] must be a text or a list of token ids")
            }
        }
        return prompts
    }
}

extension RequestFields {
    /// Returns the number of alternatives that a member asks for with each token. As in vLLM, -1 asks for all tokens of
    /// the vocabulary, which the limit must allow.
    func topLogProbs(_ name: String, service: TextService, limits: RequestLimits) throws(RequestError) -> Int? {
        let (most, vocabulary) = (
            limits.maxTopLogProbs(with: service.engine.limits), service.engine.limits.vocabularySize
        )
        let allowsAll = vocabulary <= most
        guard allowsAll || value(name)?.wholeNumber != -1 else {
            throw .invalid(
                path(of: name),
                "\(path(of: name)) is -1, which asks for all \(vocabulary) tokens of the vocabulary, but the most is \(most); "
                    + "ask for fewer, or start the server with --max-logprobs -1")
        }
        guard let count = try integer(name, in: (allowsAll ? -1 : 0)...most) else { return nil }
        return count < 0 ? vocabulary : count
    }

    /// Checks the member `model`. Without it a request is for the model that this server serves.
    ///
    /// - Throws: an error if `model` names another model.
    func checkModel(_ served: [String]) throws(RequestError) {
        // As in vLLM, an empty name is none.
        guard let model = try string("model"), !model.isEmpty, !served.contains(model) else { return }
        throw .modelNotFound(model, served: served)
    }
}

extension RequestError {
    static func modelNotFound(_ model: String, served: [String]) -> RequestError {
        let names = served.map { "'\($0)'" }.joined(separator: ", ")
        return RequestError(
            .notFound, "the model '\(model.prefix(256))' does not exist here; this server serves \(names)",
            parameter: "model", code: "model_not_found")
    }
}
