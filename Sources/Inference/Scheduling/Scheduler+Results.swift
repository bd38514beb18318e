import KVCache

extension Scheduler {
    /// Takes the result of the first step in flight, which must answer its plan chunk by chunk, and returns what
    /// happened, in the order of the plan. Results of requests that ended meanwhile are dropped, and their pages freed
    /// when no other step writes them.
    ///
    /// - Parameter seconds: how long the first stage took, where that was measured; only chunk sizes depend on it.
    package mutating func finish(_ result: StepResult, seconds: Double? = nil) -> [Event] {
        guard let plan = inFlight.first else { preconditionFailure("no step is in flight") }
        precondition(
            plan.chunks.map(\.request) == result.chunks.map(\.request), "the result answers another plan")
        inFlight.removeFirst()
        counters.steps += 1
        if let seconds, plan.chunks.count == 1, plan.chunks[0].tokens.count > 1, plan.chunks[0].drafts.isEmpty {
            chunkSizer.learn(start: plan.chunks[0].start, rows: plan.chunks[0].tokens.count, seconds: seconds)
        }
        var events: [Event] = []
        for (chunk, found) in zip(plan.chunks, result.chunks) {
            sequences[chunk.request]!.stepsInFlight -= 1
            if found.failure != nil { sequences[chunk.request]!.hasInvalidKV = true }
            if let state = sequences[chunk.request], state.phase == .draining {
                if state.stepsInFlight == 0 { remove(chunk.request) }
                continue
            }
            let (happened, isOver) = take(found, of: chunk)
            events += happened.map { Event(request: chunk.request, event: $0) }
            if isOver {
                end(chunk.request)
            } else {
                if sequences[chunk.request]!.filledPrompt(by: chunk, pageSize: pool.pageSize) { share(chunk.request) }
                releaseWindowPages(behind: chunk.request)
            }
        }
        return events
    }

    /// Takes from a request the window pages that none of its rows to come sees.
    private mutating func releaseWindowPages(behind id: UInt64) {
        guard configuration.window > 0 else { return }
        let state = sequences[id]!
        let first = max(0, state.computed - configuration.window + 1) / pool.pageSize
        let count = min(max(first - state.firstWindowPage, 0), state.windowPages.count)
        windowPool.release(Array(state.windowPages.prefix(count)))
        sequences[id]!.windowPages.removeFirst(count)
        sequences[id]!.firstWindowPage += count
    }

    /// Writes one chunk's result into the state of its request.
    private mutating func take(
        _ found: StepResult.ChunkResult, of chunk: StepPlan.Chunk
    ) -> (events: [GenerationEvent], isOver: Bool) {
        if let failure = found.failure { return ([.failed(failure)], true) }
        // Taken out and put back, so that its token list is changed in place and not copied.
        var state = sequences.removeValue(forKey: chunk.request)!
        precondition(found.scored.count == chunk.score.count, "\(chunk.score.count) rows were to be scored")
        precondition(found.sampled.isEmpty == (chunk.sample == nil), "a token was to be chosen exactly if planned")
        var events: [GenerationEvent] = []
        // What follows a wrong guess is computed again.
        let wrong = chunk.sample == nil ? 0 : chunk.sampledRows.count - found.sampled.count
        state.computed += chunk.tokens.count - wrong
        state.planned -= wrong
        state.drafts = found.drafts
        counters.promptTokens += UInt64(state.countPrompt())
        if let scores = state.takePromptScores(found.scored) { events.append(.promptLogProbs(scores)) }
        var reason: FinishReason?
        if !chunk.drafts.isEmpty {
            let speculated = SpeculationCount(steps: 1, drafted: chunk.drafts.count, right: found.sampled.count - 1)
            state.speculation += speculated
            counters.speculation += speculated
        }
        for sampled in found.sampled where reason == nil {
            precondition((0..<Int32(limits.vocabularySize)).contains(sampled.token), "token \(sampled.token) is none")
            state.tokens.append(sampled.token)
            counters.generatedTokens += 1
            events.append(.token(sampled))
            reason = state.finishReason(after: sampled.token)
        }
        if found.sampled.isEmpty && state.computed == state.tokens.count { reason = .length }
        if let reason { events.append(.finished(reason, state.usage)) }
        sequences[chunk.request] = state
        return (events, reason != nil)
    }
}

extension SequenceState {
    /// Whether a chunk that was just computed had prompt tokens and filled a page.
    fileprivate func filledPrompt(by chunk: StepPlan.Chunk, pageSize: Int) -> Bool {
        chunk.start < promptCount && computed / pageSize > chunk.start / pageSize
    }

    /// How many prompt tokens were computed, or found, for the first time since the last call.
    fileprivate mutating func countPrompt() -> Int {
        let reached = max(min(computed, promptCount), countedPrompt)
        defer { countedPrompt = reached }
        return reached - countedPrompt
    }

    /// The scores to report now, and moves on past them. A prompt's first token has nothing before it to score it.
    fileprivate mutating func takePromptScores(_ scored: [TokenLogProbs]) -> [TokenLogProbs]? {
        guard let next = nextPromptScore else { return nil }
        let report = next == 0 ? [TokenLogProbs(token: tokens[0])] + scored : scored
        nextPromptScore = next + report.count < promptCount ? next + report.count : nil
        return report.isEmpty ? nil : report
    }
}
