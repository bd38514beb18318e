import KVCache

extension EngineLimits {
    /// Throws if no engine with these limits could ever serve the request, and names the first fault found.
    ///
    /// The length of a request is its prompt and its new tokens together. The last new token is never an input, so it
    /// needs no slot in the cache, but it counts as a token of the context.
    package func check(_ request: GenerationRequest) throws(EngineError) {
        try checkPrompt(request)
        try checkLength(request)
        try request.sampling.check()
        try checkTokens(request.sampling)
        try checkLogProbs(request)
        if request.grammar != nil, request.sampling.stopTokens.isEmpty {
            throw .invalid(
                parameter: "stop_token_ids",
                message: "are none; a text that follows a grammar needs a token to end with")
        }
    }

    private func checkPrompt(_ request: GenerationRequest) throws(EngineError) {
        if request.prompt.isEmpty {
            throw .invalid(parameter: "prompt", message: "is empty; give at least one token")
        }
        if let index = request.prompt.firstIndex(where: { !isToken($0) }) {
            throw .invalid(
                parameter: "prompt",
                message: "token \(request.prompt[index]) at index \(index) is not a token id; they are "
                    + "0 to \(vocabularySize - 1)")
        }
    }

    private func checkLength(_ request: GenerationRequest) throws(EngineError) {
        let count = request.prompt.count
        let room = contextLength - count
        guard room >= 0 else {
            throw .invalid(
                parameter: "prompt",
                message: "has \(count) tokens, and the context holds \(contextLength); shorten it, or raise "
                    + "--context-length")
        }
        let asked = request.sampling.maxNewTokens
        if room == 0 && asked != 0 {
            throw .invalid(
                parameter: "prompt",
                message: "has \(count) tokens, which fills the context and leaves no room for a new one; shorten it, "
                    + "raise --context-length, or set max_new_tokens to 0")
        }
        if let asked, asked < 0 || asked > room {
            throw .invalid(
                parameter: "max_new_tokens",
                message: "is \(asked); beside \(count) prompt tokens a context of \(contextLength) leaves 0 to \(room)")
        }
        let least = request.sampling.minNewTokens
        if least < 0 || least > asked ?? room {
            throw .invalid(
                parameter: "min_new_tokens",
                message: "is \(least); give a number from 0 to \(asked ?? room), the most new tokens")
        }
    }

    private func checkTokens(_ sampling: SamplingParameters) throws(EngineError) {
        // The smallest id at fault is named, so that a message does not depend on the order of a set.
        if let token = sampling.stopTokens.filter({ !isToken($0) }).min() {
            throw .invalid(
                parameter: "stop_token_ids", message: "\(token) is not a token id; they are 0 to \(vocabularySize - 1)")
        }
        if let token = sampling.logitBias.keys.filter({ !isToken($0) }).min() {
            throw .invalid(
                parameter: "logit_bias", message: "\(token) is not a token id; they are 0 to \(vocabularySize - 1)")
        }
        if let token = sampling.logitBias.filter({ !(-100...100).contains($0.value) }).keys.min() {
            throw .invalid(
                parameter: "logit_bias",
                message: "the bias of token \(token) is \(sampling.logitBias[token]!); give a number from -100 to 100")
        }
    }

    private func checkLogProbs(_ request: GenerationRequest) throws(EngineError) {
        guard let options = request.logProbs else { return }
        if !(0...maxTopLogProbs).contains(options.topCount) {
            throw .invalid(
                parameter: "top_logprobs", message: "is \(options.topCount); give a number from 0 to \(maxTopLogProbs)")
        }
        if let start = options.promptStart, !request.prompt.indices.contains(start) {
            throw .invalid(
                parameter: "prompt_logprobs_start",
                message: "is \(start); the prompt has indices 0 to \(request.prompt.count - 1)")
        }
    }

    private func isToken(_ token: Int32) -> Bool { token >= 0 && Int(token) < vocabularySize }
}

extension SamplingParameters {
    /// Throws if a parameter is outside its legal range.
    func check() throws(EngineError) {
        let largest = Float.greatestFiniteMagnitude
        let smallest = Float.leastNonzeroMagnitude
        let bounds: [(name: String, value: Float, legal: ClosedRange<Float>, want: String)] = [
            ("temperature", temperature, 0...largest, "at least 0 and finite (0 takes the best token)"),
            ("top_p", topP, smallest...1, "a number above 0 and at most 1 (1 keeps all tokens)"),
            ("min_p", minP, 0...1, "a number from 0 (keeps all tokens) to 1"),
            ("frequency_penalty", frequencyPenalty, -2...2, "a number from -2 to 2"),
            ("presence_penalty", presencePenalty, -2...2, "a number from -2 to 2"),
            (
                "repetition_penalty", repetitionPenalty, smallest...largest,
                "a finite number above 0 (1 does nothing)"
            ),
        ]
        for bound in bounds where !bound.legal.contains(bound.value) {
            throw .invalid(parameter: bound.name, message: "is \(bound.value); give \(bound.want)")
        }
        if topK < 0 {
            throw .invalid(parameter: "top_k", message: "is \(topK); give at least 0 (0 keeps all tokens)")
        }
    }
}

extension Scheduler {
    /// Returns how many tokens a checked request may generate: its `maxNewTokens` or, without one, what the context and
    /// the whole cache leave. Throws if the whole cache could not hold the request.
    func newTokenLimit(of request: GenerationRequest) throws(EngineError) -> Int {
        let count = request.prompt.count
        let capacity = pool.totalPages * pool.pageSize
        guard count <= capacity else {
            throw tooLarge("prompt", tokens: count, "shorten it")
        }
        // The last new token needs no slot in the cache.
        let room = min(limits.contextLength - count, capacity - count + 1)
        guard let asked = request.sampling.maxNewTokens else {
            if request.sampling.minNewTokens > room {
                throw tooLarge("min_new_tokens", tokens: count + request.sampling.minNewTokens - 1, "lower it")
            }
            return room
        }
        if asked > room { throw tooLarge("max_new_tokens", tokens: count + asked - 1, "lower it") }
        return asked
    }

    private func tooLarge(_ parameter: String, tokens: Int, _ remedy: String) -> EngineError {
        let pages = pool.pages(holding: tokens)
        return .invalid(
            parameter: parameter,
            message: "needs \(pages) pages of \(pool.pageSize) tokens, and the whole cache has \(pool.totalPages); "
                + "\(remedy), or raise --max-total-tokens to at least \(pages * pool.pageSize)")
    }
}
