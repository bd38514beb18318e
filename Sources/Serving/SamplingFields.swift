import Inference
import JSON

/// The sampling parameters of a request. All routes read them alike; only some names differ.
struct SamplingFields {
    var sampling: SamplingParameters
    /// The seed; `nil` if the request gives none, so that each choice gets a random one.
    var seed: UInt64?
    var stopStrings: [String]
    var ignoresEndOfText: Bool
    var skipsSpecialTokens: Bool
    /// True if the stop string that ends an answer is part of it.
    var includesStopString: Bool
    var choices: Int
    /// The form that each answer must have; `nil` for any.
    var form: AnswerForm?
    /// The limit of new tokens if the request gave none: the route's own, or else the model's.
    private let defaultMaxTokens: Int?
    private let contextLength: Int
    private let seeds: SeedSource

    /// The names of members that differ from route to route.
    struct Names {
        /// The names of the limit of new tokens; the first one present counts.
        var maxTokens: [String]
        var minTokens: String
        var seed: [String]
        var stop = "stop"

        static let openAI = Names(
            maxTokens: ["max_completion_tokens", "max_tokens"], minTokens: "min_tokens", seed: ["seed"])
        static let responses = Names(maxTokens: ["max_output_tokens"], minTokens: "min_tokens", seed: ["seed"])
        static let messages = Names(
            maxTokens: ["max_tokens"], minTokens: "min_tokens", seed: ["seed"], stop: "stop_sequences")
        static let generate = Names(
            maxTokens: ["max_new_tokens"], minTokens: "min_new_tokens", seed: ["sampling_seed", "seed"])
    }

    /// The temperature below which the most likely token is taken, since divided logits would not fit a float.
    static let greedyBelow = 1e-5
    /// The smallest repetition penalty; logits divided by less would leave the range of a float.
    static let leastRepetitionPenalty = 0.01

    /// Reads and checks the sampling members of a request.
    ///
    /// - Parameters:
    ///   - minMaxTokens: the smallest limit of new tokens; 0 if a request may only score its prompt.
    ///   - ownMaximum: the route's own limit of new tokens if the request gives none; `nil` for the model's, or else for as
    ///     many as the context leaves.
    init(
        _ fields: RequestFields, names: Names, minMaxTokens: Int, defaultMaxTokens ownMaximum: Int?,
        service: TextService, limits: RequestLimits
    ) throws(RequestError) {
        let defaultMaximum = ownMaximum ?? service.defaults.maxNewTokens
        let vocabulary = service.engine.limits.vocabularySize
        var sampling = try Self.distribution(fields, service.defaults)
        sampling.logitBias = try Self.logitBias(fields, vocabularySize: vocabulary, limits: limits)
        for name in names.maxTokens.reversed() {
            sampling.maxNewTokens = try fields.integer(name, in: minMaxTokens...Int.max) ?? sampling.maxNewTokens
        }
        // A default that was not requested must not make a prompt too long for the context.
        defaultMaxTokens = sampling.maxNewTokens == nil ? defaultMaximum : nil
        contextLength = service.engine.limits.contextLength
        seeds = service.seeds
        sampling.minNewTokens = try fields.integer(names.minTokens, in: 0...Int.max) ?? 0
        // The limit of a request that asks for its prompt is the router's, and the least number the client's.
        if let most = sampling.maxNewTokens ?? defaultMaximum, sampling.minNewTokens > most,
            !KVTransferParams.asksForPrompt(fields)
        {
            throw .invalid(
                fields.path(of: names.minTokens),
                "\(fields.path(of: names.minTokens)) is \(sampling.minNewTokens), more than the \(most) tokens wanted")
        }
        sampling.stopTokens = Set(
            try fields.tokens("stop_token_ids", vocabularySize: vocabulary, atMost: limits.maxStopTokens) ?? [])
        self.sampling = sampling
        for name in names.seed where seed == nil {
            seed = try fields.integer(name, in: Int.min...Int.max).map { UInt64(bitPattern: Int64($0)) }
        }
        stopStrings = try Self.stopStrings(fields, names.stop, limits: limits)
        ignoresEndOfText = try fields.bool("ignore_eos") ?? false
        skipsSpecialTokens = try fields.bool("skip_special_tokens") ?? service.defaults.skipsSpecialTokens
        let includes = try fields.bool("include_stop_str_in_output")
        let isUntrimmed = try fields.bool("no_stop_trim")
        includesStopString = isUntrimmed ?? false || includes ?? false
        choices = try fields.integer("n", in: 1...limits.maxChoices) ?? 1
        form = try fields.answerForm()
    }

    /// Returns the parameters that change the distribution of tokens, without biases.
    private static func distribution(
        _ fields: RequestFields, _ defaults: SamplingDefaults
    ) throws(RequestError) -> SamplingParameters {
        var sampling = SamplingParameters()
        let temperature = try fields.number("temperature", in: 0...2) ?? Double(defaults.temperature)
        sampling.temperature = temperature < greedyBelow ? 0 : Float(temperature)
        // Any number above 0 is legal, also one that is none in a float.
        let topP = try fields.number("top_p", in: 0...1, excluding: 0) ?? Double(defaults.topP)
        sampling.topP = max(Float(topP), Float.leastNormalMagnitude)
        // Both -1 and 0 stand for all tokens.
        sampling.topK = max(0, try fields.integer("top_k", in: -1...Int.max) ?? defaults.topK)
        sampling.minP = Float(try fields.number("min_p", in: 0...1) ?? Double(defaults.minP))
        sampling.frequencyPenalty = Float(
            try fields.number("frequency_penalty", in: -2...2) ?? Double(defaults.frequencyPenalty))
        sampling.presencePenalty = Float(
            try fields.number("presence_penalty", in: -2...2) ?? Double(defaults.presencePenalty))
        sampling.repetitionPenalty = Float(
            try fields.number("repetition_penalty", in: leastRepetitionPenalty...2)
                ?? Double(defaults.repetitionPenalty))
        return sampling
    }

    /// Returns one request per choice; the seed of choice `index` is the request's seed plus `index`.
    func requests(prompt: [Int32], logProbs: LogProbOptions?, cacheSalt: String?) -> [TextRequest] {
        (0..<choices).map { index in
            var request = TextRequest(prompt: prompt, sampling: sampling, logProbs: logProbs)
            request.sampling.seed = seed.map { $0 &+ UInt64(index) } ?? seeds.next()
            if let defaultMaxTokens {
                request.sampling.maxNewTokens = min(defaultMaxTokens, max(contextLength - prompt.count, 1))
            }
            request.cacheSalt = cacheSalt
            request.form = form
            request.stopStrings = stopStrings
            request.ignoresEndOfText = ignoresEndOfText
            request.skipsSpecialTokens = skipsSpecialTokens
            request.includesStopString = includesStopString
            return request
        }
    }

    /// Returns the stop strings. The member `name` is a string or a list of strings.
    private static func stopStrings(
        _ fields: RequestFields, _ name: String, limits: RequestLimits
    ) throws(RequestError) -> [String] {
        guard let value = fields.value(name) else { return [] }
        let path = fields.path(of: name)
        let elements = value.array ?? [value]
        guard elements.count <= limits.maxStopStrings else {
            throw .invalid(path, "\(path) has \(elements.count) strings; the most is \(limits.maxStopStrings)")
        }
        var strings: [String] = []
        for element in elements {
            guard let string = element.string else {
                throw .invalid(path, "\(path) must be a string or a list of strings, not \(element.kindName)")
            }
            guard !string.isEmpty else { throw .invalid(path, "\(path) has an empty string, which is everywhere") }
            guard string.utf8.count <= limits.maxStopStringBytes else {
                throw .invalid(
                    path,
                    "\(path) has a string of \(string.utf8.count) bytes; the most is \(limits.maxStopStringBytes)")
            }
            strings.append(string)
        }
        return strings
    }

    /// Returns `logit_bias`, an object from token ids to the numbers that are added to their logits, in -100...100.
    private static func logitBias(
        _ fields: RequestFields, vocabularySize: Int, limits: RequestLimits
    ) throws(RequestError) -> [Int32: Float] {
        guard let value = fields.value("logit_bias") else { return [:] }
        let path = fields.path(of: "logit_bias")
        guard let members = value.object else {
            throw .invalid(path, "\(path) must be an object from token ids to numbers, not \(value.kindName)")
        }
        guard members.count <= limits.maxLogitBiases else {
            throw .invalid(path, "\(path) has \(members.count) entries; the most is \(limits.maxLogitBiases)")
        }
        var biases: [Int32: Float] = [:]
        for member in members {
            guard let token = Int32(member.key), token >= 0, Int(token) < vocabularySize else {
                throw .invalid(
                    path,
                    "\(path) has the key '\(member.key.prefix(32))'; keys are token ids, 0 to \(vocabularySize - 1)"
                )
            }
            biases[token] = Float(try RequestFields.number(member.value, path: path, in: -100...100))
        }
        return biases
    }
}
