package import Grammar

/// A generation request holds the tokens of a prompt and how to choose the tokens that follow.
///
/// It knows no text, stop strings or conversations; those belong to `Serving`.
package struct GenerationRequest: Sendable, Equatable {
    /// The prompt is always given as a whole; the prefix cache finds the part that was computed before.
    package var prompt: [Int32]
    package var sampling: SamplingParameters
    /// The log-probabilities to return; `nil` for none.
    package var logProbs: LogProbOptions?
    /// Requests with larger priority are served first; equal priorities are served in order of arrival.
    package var priority: Int
    /// Requests reuse each other's pages only if their salts are equal; all requests without a salt (`nil`) share one.
    package var cacheSalt: String?
    /// The grammar that the generated text must match; `nil` allows any text.
    package var grammar: GrammarSource?
    /// The part of the request that this server computes; see `DisaggregationMode`.
    package var mode = DisaggregationMode.none
    /// The index of the prefill server that shall compute the prompt in mode `decode`, if it can; `nil` for any.
    package var prefillServer: Int?
    /// The number by which the prefill server's own clients know the prompt; `nil` where none waits for it.
    package var room: UInt64?

    package init(
        prompt: [Int32], sampling: SamplingParameters = SamplingParameters(), logProbs: LogProbOptions? = nil,
        priority: Int = 0, cacheSalt: String? = nil, grammar: GrammarSource? = nil
    ) {
        self.prompt = prompt
        self.sampling = sampling
        self.logProbs = logProbs
        self.priority = priority
        self.cacheSalt = cacheSalt
        self.grammar = grammar
    }
}

/// A disaggregation mode tells which part of a request a server computes, where one server computes the keys of prompts
/// (prefill) and another one the tokens (decode).
package enum DisaggregationMode: Sendable, Equatable {
    /// The server computes the whole request.
    case none
    /// The server computes the prompt's keys and the first token for another server, and reports them as
    /// `TransferAction`, not as events.
    case prefill
    /// Another server computes the prompt's keys and the first token. If it is lost, this server computes them.
    case decode
}

extension GenerationRequest {
    /// Compiles the request's grammar in advance, so that ranks find it ready, and throws if it cannot be compiled.
    ///
    /// - Parameter grammars: The grammar cache of the engine's vocabulary; `nil` where it has none.
    package func checkGrammar(with grammars: GrammarCache?) throws(EngineError) {
        if let grammar { try grammar.compile(with: grammars) }
    }
}

extension GrammarSource {
    /// Compiles the grammar, or throws if it cannot be compiled.
    package func compile(with grammars: GrammarCache?) throws(EngineError) {
        guard let grammars else {
            throw .invalid(parameter: "grammar", message: "is not supported: the engine has no vocabulary")
        }
        do {
            _ = try grammars.grammar(for: self)
        } catch {
            throw .invalid(parameter: "grammar", message: "is refused: \(error)")
        }
    }
}

/// Sampling parameters determine how a token is chosen from logits. The defaults sample from the model's own
/// distribution.
package struct SamplingParameters: Sendable, Equatable {
    /// The number that divides the logits. 0 takes the token with the largest logit, and of equal ones that with the
    /// smaller id.
    package var temperature: Float = 1
    /// Keeps the smallest set of most likely tokens whose probabilities add up to at least this, in (0, 1].
    package var topP: Float = 1
    /// Keeps the `topK` most likely tokens; 0 keeps all.
    package var topK = 0
    /// Drops tokens that are less likely than `minP` times the most likely one, in [0, 1].
    package var minP: Float = 0
    /// The number subtracted from a token's logit for each earlier occurrence among the generated tokens.
    package var frequencyPenalty: Float = 0
    /// The number subtracted once from a token's logit if the token was generated before.
    package var presencePenalty: Float = 0
    /// The number that divides the positive and multiplies the negative logits of tokens in the prompt or the output;
    /// 1 changes nothing.
    package var repetitionPenalty: Float = 1
    /// Maps tokens to numbers that are added to their logits before anything else.
    package var logitBias: [Int32: Float] = [:]
    /// Determines, together with a token's position, the random number of its draw: equal seeds give equal draws in any
    /// batch.
    package var seed: UInt64 = 0
    /// The maximum number of new tokens; `nil` allows as many as the context length leaves.
    package var maxNewTokens: Int?
    /// The number of new tokens before which no stop token is sampled.
    package var minNewTokens = 0
    /// The tokens after any of which generation ends; that token is still reported.
    package var stopTokens: Set<Int32> = []

    package init() {}

    /// True if sampling depends on the tokens generated before.
    var penalizes: Bool { repetitionPenalty != 1 || frequencyPenalty != 0 || presencePenalty != 0 }
}

/// Log-probability options name the log-probabilities a request asks for: natural logarithms, of the unmodified
/// distribution.
package struct LogProbOptions: Sendable, Equatable {
    /// The number of most likely alternatives to list for each token.
    package var topCount: Int
    /// The first prompt index whose token is scored; `nil` scores no prompt token. Index 0 follows nothing, so its
    /// entry carries no log-probability.
    package var promptStart: Int?

    package init(topCount: Int = 0, promptStart: Int? = nil) {
        self.topCount = topCount
        self.promptStart = promptStart
    }
}

/// A scored token is a token with the log-probability the model gave it.
package struct ScoredToken: Sendable, Equatable {
    package var token: Int32
    package var logProb: Float
    package init(token: Int32, logProb: Float) {
        self.token = token
        self.logProb = logProb
    }
}

/// The token at one position, its log-probability where one was requested and is defined, and the most likely
/// alternatives in descending order.
package struct TokenLogProbs: Sendable, Equatable {
    package var token: Int32
    /// `nil` when no log-probability was requested, and for the first token of a prompt.
    package var logProb: Float?
    package var top: [ScoredToken]
    package init(token: Int32, logProb: Float? = nil, top: [ScoredToken] = []) {
        self.token = token
        self.logProb = logProb
        self.top = top
    }
}

/// A finish reason tells why a generation ended.
package enum FinishReason: Sendable, Equatable {
    /// A stop token was generated.
    case stop(token: Int32)
    /// `maxNewTokens` or the context length was reached.
    case length
    /// The client disconnected or aborted the request.
    case abort
}

/// The usage of a request counts its tokens.
package struct Usage: Sendable, Equatable {
    package var promptTokens: Int
    package var completionTokens: Int
    /// The number of prompt tokens whose keys were found in the prefix cache and not computed again.
    package var cachedTokens: Int
    package var speculation = SpeculationCount()
    package init(promptTokens: Int, completionTokens: Int, cachedTokens: Int = 0) {
        self.promptTokens = promptTokens
        self.completionTokens = completionTokens
        self.cachedTokens = cachedTokens
    }
}

/// The counts of speculative decoding: steps with drafts, draft tokens, and accepted draft tokens.
package struct SpeculationCount: Sendable, Equatable {
    /// The number of steps of requests that verified draft tokens.
    package var steps = 0
    /// The number of draft tokens that were verified.
    package var drafted = 0
    /// The number of verified draft tokens that were accepted.
    package var accepted = 0

    package init(steps: Int = 0, drafted: Int = 0, accepted: Int = 0) {
        self.steps = steps
        self.drafted = drafted
        self.accepted = accepted
    }

    /// The average number of tokens per step, counting the token after the last accepted draft; `nil` before the first
    /// step with drafts.
    package var acceptLength: Double? { steps == 0 ? nil : Double(steps + accepted) / Double(steps) }

    package static func += (sum: inout Self, other: Self) {
        sum.steps += other.steps
        sum.drafted += other.drafted
        sum.accepted += other.accepted
    }
}

/// The events of a request come in this order: prompt scores (if requested), tokens, then exactly one `finished` or
/// `failed`.
package enum GenerationEvent: Sendable, Equatable {
    /// Scores of prompt tokens, in order and possibly in several events; the first begins at `promptStart`.
    case promptLogProbs([TokenLogProbs])
    case token(TokenLogProbs)
    case finished(FinishReason, Usage)
    /// This request failed, for example because of NaN logits; other requests go on.
    case failed(String)
}
