import Grammar

/// A sequence state is what the scheduler knows of one request: its tokens so far, and how many of them have keys in
/// the cache.
struct SequenceState: Sendable {
    enum Phase: Sendable {
        /// The request waits outside of the queue for the prefix store, which fills the pages that it holds.
        case restoring
        /// The request is in the queue and holds no pages.
        case queued
        /// The request runs, and holds the pages of what was computed.
        case running
        /// The request waits for the other server, and holds no pages: in mode `decode` until that has begun with the
        /// prompt, in mode `prefill`, after the prompt was computed, until that asks for the keys.
        case awaitingPeer
        /// The request is listed as running. It holds the pages of the whole prompt, or gets them next, and the other
        /// server's keys are written to them.
        case receiving
        /// The prompt is computed, and its pages are kept until their keys have been sent.
        case sending
        /// The request ended while steps in flight write its pages, which are freed when the last of those steps ends.
        case draining
    }

    let id: UInt64
    let precedence: Precedence
    let sampling: SamplingParameters
    let logProbs: LogProbOptions?
    let cacheSalt: String?
    let grammar: GrammarSource?
    let promptCount: Int
    /// The tokens that occur in the prompt, each once and ascending; empty unless the repetition penalty needs them. Every
    /// plan shares this list, however long the prompt is.
    let penalizedTokens: [Int32]
    /// The maximum number of generated tokens: what the request asks for, or what the context and the cache leave.
    let newTokenLimit: Int

    var phase = Phase.queued
    /// The part that this server computes. It becomes `none` when the server has, or must compute, everything else.
    var mode: DisaggregationMode
    /// The index of the prefill server that a request in mode `decode` names, or that was asked last.
    var prefillServer: Int?
    /// The number by which a prefill server's own clients know the prompt of a request in mode `decode`.
    let room: UInt64?
    /// True in mode `prefill` once the other server has been told that the prompt is being computed. The data group
    /// does not change from then on.
    var isPrefillAnnounced = false
    /// The number of times in a row that another server was asked for the prefill of a request in mode `decode`.
    var prefillAttempt = 0
    /// True in mode `prefill` once the other server has asked for the keys.
    var isSending = false
    /// True if the request was queued later than it arrived.
    var wasQueuedLate = false
    /// Entries of window sets before this position are not known, although a page has space for them.
    var firstWindowEntry = 0
    /// The number of blocks whose tokens the prefix store was told of.
    var notedBlocks = 0
    /// True if a plan has announced the grammar to the ranks.
    var isGrammarAnnounced = false
    /// The prompt and the generated tokens. After a preemption all of them are computed again.
    var tokens: [Int32]
    /// The draft tokens that follow `tokens`.
    var drafts: [Int32] = []
    /// Positions `0 ..< computed` have keys in `pages`; positions `0 ..< planned` are computed or in flight.
    var computed = 0
    var planned = 0
    /// The number of steps in flight with rows of this request.
    var stepsInFlight = 0
    /// The number of the last plan with rows of this request.
    var lastPlan = -1
    /// Another request needs this one's pages: it gets no new steps until it can be preempted.
    var preemptionRequested = false
    /// The data group whose ranks compute the request.
    var group = 0
    /// True from when keys were restored for the request, or found before it was queued, until it is admitted: only its
    /// group has them, so the group does not change meanwhile.
    var keepsGroup = false
    /// The number of prompt tokens reported to the metrics as computed; a preemption does not subtract any.
    var countedPrompt = 0
    /// The request's pages in order of position; together they hold at least `computed` tokens.
    var pages: [Int32] = []
    /// The window pages of the positions that later rows see, followed by those of planned positions.
    var windowPages: [Int32] = []
    /// The index in `pages` of the page that has the same positions as the first of `windowPages`.
    var firstWindowPage = 0
    /// True if the window before the first row may be incomplete in some processes: the prefix was found in the cache, and
    /// no row was planned since.
    var lacksWindow = false
    /// The number of pages, from the first on, that were found in the cache; this request must not write them.
    var sharedPages = 0
    /// The number of prompt tokens found in the cache when the request was first admitted; `nil` before that.
    var cachedTokens: Int?
    var speculation = SpeculationCount()
    /// The request produced invalid values such as NaN, so no other request may reuse its pages.
    var hasInvalidKV = false
    /// The index of the next prompt token to report with its score; `nil` when none is left. A preemption does not
    /// change it, so no score is reported twice.
    var nextPromptScore: Int?

    init(id: UInt64, precedence: Precedence, request: GenerationRequest, newTokenLimit: Int) {
        self.id = id
        self.precedence = precedence
        sampling = request.sampling
        logProbs = request.logProbs
        cacheSalt = request.cacheSalt
        prefillServer = request.prefillServer
        room = request.room
        grammar = request.grammar
        mode = request.mode
        promptCount = request.prompt.count
        penalizedTokens = request.sampling.repetitionPenalty == 1 ? [] : Self.distinct(request.prompt)
        self.newTokenLimit = newTokenLimit
        tokens = request.prompt
        nextPromptScore = request.logProbs?.promptStart
    }

    var generatedCount: Int { tokens.count - promptCount }
    /// The number of tokens whose keys are neither in the cache nor in a step in flight.
    var unplanned: Int { tokens.count - planned }
    /// True if only the newest token lacks its keys, and is a generated one.
    var isDecoding: Bool { generatedCount > 0 && unplanned == 1 }
    /// The maximum number of positions ever computed; the last generated token is never an input.
    var finalLength: Int { promptCount + max(newTokenLimit, 1) - 1 }

    var usage: Usage {
        var usage = Usage(
            promptTokens: promptCount, completionTokens: generatedCount, cachedTokens: cachedTokens ?? 0)
        usage.speculation = speculation
        return usage
    }

    /// The maximum number of draft tokens that can still be accepted: the last token allowed is never an input.
    var acceptedDrafts: Int { max(newTokenLimit - generatedCount - 1, 0) }

    /// Returns why generation ends with `token`, which was just appended; `nil` when it goes on.
    func finishReason(after token: Int32) -> FinishReason? {
        if sampling.stopTokens.contains(token) { return .stop(token: token) }
        return generatedCount >= newTokenLimit ? .length : nil
    }

    /// Returns the next `rows` positions, and the draft tokens after them, as a chunk of a plan. Their pages must have
    /// been allocated.
    ///
    /// - Parameter speculation: How the next-token block takes part; this function fills in the token after the chunk.
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

    /// Returns the rows that score prompt tokens: row `i` of a chunk scores the token one position further on. Reported
    /// tokens are not scored again.
    private func scoreRows(until end: Int) -> [StepPlan.ScoreRow] {
        guard let next = nextPromptScore else { return [] }
        let targets = max(next, planned + 1)..<max(next, planned + 1, min(end + 1, promptCount))
        return targets.map { StepPlan.ScoreRow(row: $0 - 1 - planned, target: tokens[$0]) }
    }

    /// Returns the tokens of a valid prompt, each once and ascending.
    private static func distinct(_ prompt: [Int32]) -> [Int32] {
        // The scheduler is locked meanwhile, and a set of a million tokens would take long.
        var occurs = [Bool](repeating: false, count: Int(prompt.max() ?? -1) + 1)
        for token in prompt { occurs[Int(token)] = true }
        return occurs.indices.filter { occurs[$0] }.map { Int32($0) }
    }

    private var sample: StepPlan.Sample {
        StepPlan.Sample(
            parameters: sampling, position: tokens.count,
            generated: sampling.penalizes || grammar != nil ? Array(tokens[promptCount...]) : [],
            prompt: penalizedTokens,
            minTokensRemaining: max(0, sampling.minNewTokens - generatedCount), isConstrained: grammar != nil)
    }
}
