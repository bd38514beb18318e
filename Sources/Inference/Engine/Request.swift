package import Grammar

/// One request as the engine sees it: tokens in, and how to choose the tokens that come out.
///
/// Text, stop strings and conversations belong to `Serving`; nothing here knows them.
package struct GenerationRequest: Sendable, Equatable {
    /// The whole prompt, never a continuation: the cache finds what it already knows.
    package var prompt: [Int32]
    package var sampling: SamplingParameters
    /// Which log-probabilities to return; `nil` for none.
    package var logProbs: LogProbOptions?
    /// Larger goes first; equal priorities are served in order of arrival.
    package var priority: Int
    /// Only requests with the same salt use each other's pages; `nil` is one that all others share.
    package var cacheSalt: String?
    /// What the generated text must follow; `nil` for anything.
    package var grammar: GrammarSource?

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

extension GenerationRequest {
    /// Compiles what the text must follow, so that ranks find it ready, and refuses what cannot be compiled.
    ///
    /// - Parameter grammars: of the engine's vocabulary; `nil` where it has none.
    package func checkGrammar(with grammars: GrammarCache?) throws(EngineError) {
        guard let grammar else { return }
        guard let grammars else {
            throw .invalid(parameter: "grammar", message: "is not supported: the engine has no vocabulary")
        }
        do {
            _ = try grammars.grammar(for: grammar)
        } catch {
            throw .invalid(parameter: "grammar", message: "is refused: \(error)")
        }
    }
}

/// How the next token is chosen. The defaults sample from the model's own distribution.
package struct SamplingParameters: Sendable, Equatable {
    /// Logits are divided by this; 0 takes the best token (ties: the smaller id).
    package var temperature: Float = 1
    /// Keeps the smallest set of best tokens whose probability reaches this, in (0, 1].
    package var topP: Float = 1
    /// Keeps the best `topK` tokens; 0 keeps all.
    package var topK = 0
    /// Drops tokens less likely than `minP` times the best token, in [0, 1].
    package var minP: Float = 0
    /// Subtracted once per earlier occurrence among the generated tokens.
    package var frequencyPenalty: Float = 0
    /// Subtracted once if the token was generated before.
    package var presencePenalty: Float = 0
    /// Divides positive and multiplies negative logits of tokens seen in prompt or output; 1 does nothing.
    package var repetitionPenalty: Float = 1
    /// Added to the logits of these tokens before anything else.
    package var logitBias: [Int32: Float] = [:]
    /// With `position`, the whole state of the generator: equal seeds give equal draws in any batch.
    package var seed: UInt64 = 0
    /// At most this many new tokens; `nil` up to the context length.
    package var maxNewTokens: Int?
    /// Stop tokens are not sampled before this many new tokens.
    package var minNewTokens = 0
    /// Generation ends after one of these; the token itself is reported last.
    package var stopTokens: Set<Int32> = []

    package init() {}

    /// Whether a choice depends on the tokens generated before it.
    var penalizes: Bool { repetitionPenalty != 1 || frequencyPenalty != 0 || presencePenalty != 0 }
}

/// Which log-probabilities (natural logarithm, of the unmodified distribution) a request wants.
package struct LogProbOptions: Sendable, Equatable {
    /// How many best alternatives to list beside each token.
    package var topCount: Int
    /// First prompt index whose token is scored; `nil` scores no prompt token.
    /// Index 0 has nothing before it, so its entry carries no log-probability.
    package var promptStart: Int?

    package init(topCount: Int = 0, promptStart: Int? = nil) {
        self.topCount = topCount
        self.promptStart = promptStart
    }
}

/// A token with the log-probability the model gave it.
package struct ScoredToken: Sendable, Equatable {
    package var token: Int32
    package var logProb: Float
    package init(token: Int32, logProb: Float) {
        self.token = token
        self.logProb = logProb
    }
}

/// One position's token, its log-probability where asked for and defined, and the best alternatives, best first.
package struct TokenLogProbs: Sendable, Equatable {
    package var token: Int32
    /// `nil` when nothing was asked for, and for the first token of a prompt.
    package var logProb: Float?
    package var top: [ScoredToken]
    package init(token: Int32, logProb: Float? = nil, top: [ScoredToken] = []) {
        self.token = token
        self.logProb = logProb
        self.top = top
    }
}

/// Why a generation ended.
package enum FinishReason: Sendable, Equatable {
    /// A stop token was generated.
    case stop(token: Int32)
    /// `maxNewTokens` or the context length was reached.
    case length
    /// The caller went away or asked for it.
    case abort
}

/// What a request cost.
package struct Usage: Sendable, Equatable {
    package var promptTokens: Int
    package var completionTokens: Int
    /// Prompt tokens whose keys were found in the cache and not computed again.
    package var cachedTokens: Int
    package var speculation = SpeculationCount()
    package init(promptTokens: Int, completionTokens: Int, cachedTokens: Int = 0) {
        self.promptTokens = promptTokens
        self.completionTokens = completionTokens
        self.cachedTokens = cachedTokens
    }
}

/// How well tokens were guessed.
package struct SpeculationCount: Sendable, Equatable {
    /// Steps that computed guesses.
    package var steps = 0
    /// The guesses they computed, and those of them that were right.
    package var drafted = 0
    package var right = 0

    package init(steps: Int = 0, drafted: Int = 0, right: Int = 0) {
        self.steps = steps
        self.drafted = drafted
        self.right = right
    }

    /// Tokens chosen in a step on average, the one after the last right guess included; `nil` before there are any.
    package var acceptLength: Double? { steps == 0 ? nil : Double(steps + right) / Double(steps) }

    package static func += (sum: inout Self, other: Self) {
        sum.steps += other.steps
        sum.drafted += other.drafted
        sum.right += other.right
    }
}

/// What happens to a request, in order: prompt scores (if asked for), tokens, then exactly one of the last two.
package enum GenerationEvent: Sendable, Equatable {
    /// Scores of prompt tokens, in order, possibly in several pieces; the first begins at `promptStart`.
    case promptLogProbs([TokenLogProbs])
    case token(TokenLogProbs)
    case finished(FinishReason, Usage)
    /// This request failed (for example NaN logits); others are not touched.
    case failed(String)
}
