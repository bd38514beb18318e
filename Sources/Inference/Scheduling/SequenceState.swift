import Grammar

/// What the scheduler knows of one request: its tokens so far, and how much of them is in the cache.
struct SequenceState: Sendable {
    enum Phase: Sendable {
        /// In the queue; holds no pages.
        case queued
        /// Has a place among the running requests, and the pages of what was computed.
        case running
        /// Ended while steps that write its pages are in flight: they are freed when the last of those ends.
        case draining
    }

    let id: UInt64
    let precedence: Precedence
    let sampling: SamplingParameters
    let logProbs: LogProbOptions?
    let cacheSalt: String?
    let grammar: GrammarSource?
    let promptCount: Int
    /// How many tokens may be generated: what was asked for, or what fits.
    let newTokenLimit: Int

    var phase = Phase.queued
    /// A plan has told the ranks of the grammar.
    var isGrammarAnnounced = false
    /// The prompt, then the generated tokens. After a preemption all of them are computed again.
    var tokens: [Int32]
    /// What the next-token block guesses to follow them.
    var drafts: [Int32] = []
    /// Positions `0 ..< computed` have their keys in `pages`; up to `planned` they are computed or in flight.
    var computed = 0
    var planned = 0
    /// Steps that were handed out with rows of this request and have not come back.
    var stepsInFlight = 0
    /// The number of the last plan with rows of this request.
    var lastPlan = -1
    /// Another request needs its pages: it gets no new steps until they can be taken.
    var preemptionRequested = false
    /// The data group whose ranks compute it.
    var group = 0
    /// Prompt tokens that were counted as computed; preemption does not take them back.
    var countedPrompt = 0
    /// In order of position; together they hold at least `computed` tokens.
    var pages: [Int32] = []
    /// The window pages of the positions that rows to come see, and behind those of positions that are planned.
    var windowPages: [Int32] = []
    /// Which of `pages` the first of `windowPages` stands beside.
    var firstWindowPage = 0
    /// How many of `pages`, from the first on, were found in the cache; this request must not write them.
    var sharedPages = 0
    /// Prompt tokens whose keys were found in the cache when the request was first admitted; `nil` before that.
    var cachedTokens: Int?
    var speculation = SpeculationCount()
    /// Its numbers were not usable, so nobody else shall use its pages.
    var hasInvalidKV = false
    /// Index of the next prompt token to report with its score; `nil` when none is wanted.
    /// Survives preemption, so that nothing is reported twice.
    var nextPromptScore: Int?

    init(id: UInt64, precedence: Precedence, request: GenerationRequest, newTokenLimit: Int) {
        self.id = id
        self.precedence = precedence
        sampling = request.sampling
        logProbs = request.logProbs
        cacheSalt = request.cacheSalt
        grammar = request.grammar
        promptCount = request.prompt.count
        self.newTokenLimit = newTokenLimit
        tokens = request.prompt
        nextPromptScore = request.logProbs?.promptStart
    }

    var generatedCount: Int { tokens.count - promptCount }
    /// Tokens whose keys are neither in the cache nor on their way there.
    var unplanned: Int { tokens.count - planned }
    /// Only the newest token is missing from the cache, and it is a generated one.
    var isDecoding: Bool { generatedCount > 0 && unplanned == 1 }
    /// Positions ever computed, at most: the last generated token is never an input.
    var finalLength: Int { promptCount + max(newTokenLimit, 1) - 1 }

    var usage: Usage {
        var usage = Usage(
            promptTokens: promptCount, completionTokens: generatedCount, cachedTokens: cachedTokens ?? 0)
        usage.speculation = speculation
        return usage
    }

    /// How many guesses a row behind the newest token may still be worth: the last token allowed is never an input.
    var acceptedDrafts: Int { max(newTokenLimit - generatedCount - 1, 0) }

    /// Why generation ends with `token`, which was just appended; `nil` when it goes on.
    func finishReason(after token: Int32) -> FinishReason? {
        if sampling.stopTokens.contains(token) { return .stop(token: token) }
        return generatedCount >= newTokenLimit ? .length : nil
    }

    /// The next `rows` positions, and so many guesses behind them, as a chunk of a plan. Its pages must be there.
    ///
    /// - Parameter speculation: how the next-token block takes part; what follows the chunk is filled in.
    func chunk(rows: Int, _ speculation: StepPlan.Chunk.Speculation? = nil) -> StepPlan.Chunk {
        let end = planned + rows
        let wantsToken = end == tokens.count && generatedCount < newTokenLimit
        var speculation = speculation
        if end < tokens.count { speculation?.next = tokens[end] }
        return StepPlan.Chunk(
            request: id, group: group, tokens: Array(tokens[planned..<end]) + drafts[..<(speculation?.drafted ?? 0)],
            start: planned, pages: pages, windowPages: windowPages, firstWindowPage: firstWindowPage,
            sample: wantsToken ? sample : nil, speculation: speculation,
            score: scoreRows(until: end), topLogProbs: logProbs?.topCount)
    }

    /// Row `i` of a chunk scores the prompt token one position further on; what was reported is not scored again.
    private func scoreRows(until end: Int) -> [StepPlan.ScoreRow] {
        guard let next = nextPromptScore else { return [] }
        let targets = max(next, planned + 1)..<max(next, planned + 1, min(end + 1, promptCount))
        return targets.map { StepPlan.ScoreRow(row: $0 - 1 - planned, target: tokens[$0]) }
    }

    private var sample: StepPlan.Sample {
        let repeats = sampling.repetitionPenalty != 1
        return StepPlan.Sample(
            parameters: sampling, position: tokens.count,
            generated: sampling.penalizes || grammar != nil ? Array(tokens[promptCount...]) : [],
            prompt: repeats ? Array(tokens[..<promptCount]) : [],
            minTokensRemaining: max(0, sampling.minNewTokens - generatedCount), isConstrained: grammar != nil)
    }
}
