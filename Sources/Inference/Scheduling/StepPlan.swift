package import Grammar

/// What every rank needs to know for one step: small, a value, and complete.
///
/// The scheduler writes it, the ranks read it. It says nothing about who computes which row: that is the
/// partition's business.
package struct StepPlan: Sendable, Equatable {
    package var number: Int
    /// One per request that has rows in this step; prefill chunks and decode rows alike.
    package var chunks: [Chunk]
    /// The grammars of requests that follow one, each in the first plan that samples a token of it.
    package var grammars: [RequestGrammar] = []
    /// Requests with a grammar that have ended.
    package var endedGrammars: [UInt64] = []

    package init(number: Int, chunks: [Chunk]) {
        self.number = number
        self.chunks = chunks
    }

    /// A request and what its text must follow.
    package struct RequestGrammar: Sendable, Equatable {
        package var request: UInt64
        package var source: GrammarSource
        package init(request: UInt64, source: GrammarSource) {
            self.request = request
            self.source = source
        }
    }

    /// Consecutive positions of one request. A decode row is a chunk of one token.
    package struct Chunk: Sendable, Equatable {
        package var request: UInt64
        /// The data group whose ranks compute it.
        package var group: Int
        /// Input tokens of the rows, at positions `start ..< start + tokens.count`.
        package var tokens: [Int32]
        package var start: Int
        /// Pages of positions `0 ..< start + tokens.count`, in order, and of those where guesses are made.
        package var pages: [Int32]
        /// Window pages of the positions that the rows see and of the rows' own, in order; empty where the model has no
        /// windows.
        package var windowPages: [Int32]
        /// Which of `pages` the first of them stands beside.
        package var firstWindowPage: Int
        /// Set when the last row's logits choose a token; where its last tokens are guesses, so do the rows before.
        package var sample: Sample?
        /// Set when the next-token block runs too.
        package var speculation: Speculation?
        /// Rows (indices into `tokens`) whose logits score the next prompt token, with that token. Empty for none.
        package var score: [ScoreRow]
        /// How many alternatives to list for scored and sampled tokens; `nil` when no log-probabilities are wanted.
        package var topLogProbs: Int?

        package init(
            request: UInt64, group: Int = 0, tokens: [Int32], start: Int, pages: [Int32],
            windowPages: [Int32] = [], firstWindowPage: Int = 0, sample: Sample? = nil,
            speculation: Speculation? = nil, score: [ScoreRow] = [], topLogProbs: Int? = nil
        ) {
            self.request = request
            self.group = group
            self.tokens = tokens
            self.start = start
            self.pages = pages
            self.windowPages = windowPages
            self.firstWindowPage = firstWindowPage
            self.sample = sample
            self.speculation = speculation
            self.score = score
            self.topLogProbs = topLogProbs
        }

        /// The rows whose logits are needed: those that are scored, and those whose logits choose a token.
        package var outputRows: [Int] {
            let scored = score.map(\.row)
            return scored + sampledRows.filter { $0 > scored.last ?? -1 }
        }
    }

    /// A row whose logits are compared with a known next token.
    package struct ScoreRow: Sendable, Equatable {
        package var row: Int
        package var target: Int32
        package init(row: Int, target: Int32) {
            self.row = row
            self.target = target
        }
    }

    /// How to choose the token that follows a chunk.
    package struct Sample: Sendable, Equatable {
        package var parameters: SamplingParameters
        /// Position of the token to be chosen: with the seed, the generator's whole state.
        package var position: Int
        /// Tokens generated so far; empty unless a penalty or a grammar needs them.
        package var generated: [Int32]
        /// The prompt; empty unless the repetition penalty needs it.
        package var prompt: [Int32]
        /// So many tokens, the one to be chosen among them, must not be stop tokens: see `minNewTokens`.
        package var minTokensRemaining: Int
        /// The request follows a grammar.
        package var isConstrained: Bool

        package init(
            parameters: SamplingParameters, position: Int, generated: [Int32] = [], prompt: [Int32] = [],
            minTokensRemaining: Int = 0, isConstrained: Bool = false
        ) {
            self.parameters = parameters
            self.position = position
            self.generated = generated
            self.prompt = prompt
            self.minTokensRemaining = minTokensRemaining
            self.isConstrained = isConstrained
        }

        /// Tokens that must not be chosen now.
        package var forbidden: Set<Int32> { minTokensRemaining > 0 ? parameters.stopTokens : [] }
    }
}

/// What the ranks found, in the order of the plan's chunks.
package struct StepResult: Sendable, Equatable {
    package var chunks: [ChunkResult]
    package init(chunks: [ChunkResult]) { self.chunks = chunks }

    package struct ChunkResult: Sendable, Equatable {
        package var request: UInt64
        /// The chosen tokens, when the plan asked for any: one, and one more for each guess that was right.
        package var sampled: [TokenLogProbs]
        /// What the next-token block guesses to follow them.
        package var drafts: [Int32]
        /// One per `ScoreRow`, in order: the target token, its log-probability, and the best alternatives.
        package var scored: [TokenLogProbs]
        /// Set when this request's numbers were not usable; it fails, the others go on.
        package var failure: String?

        package init(
            request: UInt64, sampled: [TokenLogProbs] = [], drafts: [Int32] = [], scored: [TokenLogProbs] = [],
            failure: String? = nil
        ) {
            self.request = request
            self.sampled = sampled
            self.drafts = drafts
            self.scored = scored
            self.failure = failure
        }
    }
}
