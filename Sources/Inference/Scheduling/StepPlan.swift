package import Grammar

/// A step plan is everything that ranks need to know for one step, as a small value.
///
/// The scheduler writes it and the ranks read it. It does not say who computes which row; see `RowAssignment`.
package struct StepPlan: Sendable, Equatable {
    package var number: Int
    /// One chunk for each request that has rows in this step; prefill chunks and decode rows alike.
    package var chunks: [Chunk]
    /// The grammars of constrained requests, each in the first plan that samples a token for it.
    package var grammars: [RequestGrammar] = []
    /// The requests with a grammar that have ended.
    package var endedGrammars: [UInt64] = []
    /// True if ranks collect the spans of this step.
    package var isTraced = false

    package init(number: Int, chunks: [Chunk]) {
        self.number = number
        self.chunks = chunks
    }

    /// A request and the grammar that its text must match.
    package struct RequestGrammar: Sendable, Equatable {
        package var request: UInt64
        package var source: GrammarSource
        package init(request: UInt64, source: GrammarSource) {
            self.request = request
            self.source = source
        }
    }

    /// A chunk is a run of consecutive positions of one request. A decode row is a chunk of one token.
    package struct Chunk: Sendable, Equatable {
        package var request: UInt64
        /// The data group whose ranks compute the chunk.
        package var group: Int
        /// The input tokens of the rows, at positions `start ..< start + tokens.count`.
        package var tokens: [Int32]
        package var start: Int
        /// The pages of positions `0 ..< start + tokens.count`, in order, and of the positions where tokens are
        /// drafted.
        package var pages: [Int32]
        /// The window pages of the positions that the rows see and of the rows' own, in order; empty where the model has
        /// no windows.
        package var windowPages: [Int32]
        /// The index in `pages` of the page that has the same positions as the first of `windowPages`.
        package var firstWindowPage: Int
        /// The ranks of the data group that send the others window entries of earlier steps, before the rows read them;
        /// `nil` where every rank has what its rows see.
        package var windowSources: WindowSources?
        /// Tells how to sample from the logits of the last row and, if the chunk ends with drafts, of the rows before
        /// them; `nil` samples no token.
        package var sample: Sample?
        /// Tells how the next-token block takes part; `nil` where it does not run.
        package var speculation: Speculation?
        /// The rows (indices into `tokens`) whose logits score the next prompt token, with that token.
        package var score: [ScoreRow]
        /// The number of alternatives to list for scored and sampled tokens; `nil` when no log-probabilities are
        /// wanted.
        package var topLogProbs: Int?

        package init(
            request: UInt64, group: Int = 0, tokens: [Int32], start: Int, pages: [Int32],
            windowPages: [Int32] = [], firstWindowPage: Int = 0, windowSources: WindowSources? = nil,
            sample: Sample? = nil,
            speculation: Speculation? = nil, score: [ScoreRow] = [], topLogProbs: Int? = nil
        ) {
            self.request = request
            self.group = group
            self.tokens = tokens
            self.start = start
            self.pages = pages
            self.windowPages = windowPages
            self.firstWindowPage = firstWindowPage
            self.windowSources = windowSources
            self.sample = sample
            self.speculation = speculation
            self.score = score
            self.topLogProbs = topLogProbs
        }

        /// The first position that the next step may compute. Rejected drafts are computed again.
        package var nextPosition: Int { start + tokens.count - drafts.count }

        /// The rows whose logits are needed: those that are scored, and those that a token is sampled from.
        package var outputRows: [Int] {
            let scored = score.map(\.row)
            return scored + sampledRows.filter { $0 > scored.last ?? -1 }
        }
    }

    /// The ranks of a data group that have the window entries before a page border up to which a prefix was found in the
    /// cache.
    package struct WindowSources: Sendable, Equatable {
        /// The page border.
        package var end: Int
        /// The rank, counted in its data group, that has the entries of each of the last units of
        /// `Model.positionAlignment` positions before `end`; -1 if every rank of the group has them.
        package var ranks: [Int32]

        package init(end: Int, ranks: [Int32]) {
            self.end = end
            self.ranks = ranks
        }

        /// Returns the units whose entries only one rank has, with that rank.
        ///
        /// - Parameter alignment: the number of positions of a unit.
        func units(of alignment: Int) -> [(positions: Range<Int>, rank: Int)] {
            let first = end - ranks.count * alignment
            return ranks.enumerated().filter { $1 >= 0 }.map { index, rank in
                (first + index * alignment..<first + (index + 1) * alignment, Int(rank))
            }
        }
    }

    /// A score row is a row whose logits score a known next token.
    package struct ScoreRow: Sendable, Equatable {
        package var row: Int
        package var target: Int32
        package init(row: Int, target: Int32) {
            self.row = row
            self.target = target
        }
    }

    /// A sample tells how to sample the token after a chunk.
    package struct Sample: Sendable, Equatable {
        package var parameters: SamplingParameters
        /// The position of the token to be sampled, which together with the seed determines the random number.
        package var position: Int
        /// The tokens generated so far; empty unless a penalty or a grammar needs them.
        package var generated: [Int32]
        /// The tokens that occur in the prompt, each once and ascending; empty unless the repetition penalty needs them.
        package var prompt: [Int32]
        /// The next `minTokensRemaining` tokens, including this one, must not be stop tokens: see `minNewTokens`.
        package var minTokensRemaining: Int
        /// True if the request follows a grammar.
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

        /// The tokens that must not be sampled now.
        package var forbidden: Set<Int32> { minTokensRemaining > 0 ? parameters.stopTokens : [] }
    }
}

/// A step result holds what the ranks found, in the order of the plan's chunks.
package struct StepResult: Sendable, Equatable {
    package var chunks: [ChunkResult]
    package init(chunks: [ChunkResult]) { self.chunks = chunks }

    package struct ChunkResult: Sendable, Equatable {
        package var request: UInt64
        /// The sampled tokens, if the plan asks for any: one, and one more for each accepted draft.
        package var sampled: [TokenLogProbs]
        /// The draft tokens that follow `sampled`.
        package var drafts: [Int32]
        /// One entry per `ScoreRow`, in order: the target token, its log-probability, and the most likely alternatives.
        package var scored: [TokenLogProbs]
        /// The reason why this request's values are invalid; the request then fails, and the others go on.
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
