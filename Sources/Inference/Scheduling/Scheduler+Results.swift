import KVCache

extension Scheduler {
    /// Applies the result of the first step in flight, which must answer its plan chunk by chunk, and returns the
    /// resulting events in the order of the plan. Results of requests that have ended are dropped; their pages are
    /// freed once no other step writes them.
    ///
    /// - Parameter seconds: The time the first pipeline stage took, where it was measured; only chunk sizes depend on
    ///   it.
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
            windowOwners?.noteSent(for: chunk)
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
                if sequences[chunk.request]!.mode == .prefill { advancePrefill(chunk.request, found) }
            }
        }
        return events
    }

    /// Frees those window pages of a request that none of its later rows sees, nor a request that continues from its last
    /// page border.
    mutating func releaseWindowPages(behind id: UInt64) {
        guard configuration.window > 0 else { return }
        let state = sequences[id]!
        let first =
            configuration.prefixCache
            ? CacheFormat.firstWindowPage(
                before: state.computed, window: configuration.window, pageSize: pool.pageSize)
            : max(0, state.computed - configuration.window + 1) / pool.pageSize
        let count = min(max(first - state.firstWindowPage, 0), state.windowPages.count)
        windowPool.release(Array(state.windowPages.prefix(count)))
        sequences[id]!.windowPages.removeFirst(count)
        sequences[id]!.firstWindowPage += count
    }

    /// Applies one chunk's result to the state of its request.
    private mutating func take(
        _ found: StepResult.ChunkResult, of chunk: StepPlan.Chunk
    ) -> (events: [GenerationEvent], isOver: Bool) {
        if let failure = found.failure { return ([.failed(failure)], true) }
        // Taken out and put back, so that its token list is changed in place and not copied.
        var state = sequences.removeValue(forKey: chunk.request)!
        precondition(found.scored.count == chunk.score.count, "\(chunk.score.count) rows were to be scored")
        precondition(found.sampled.isEmpty == (chunk.sample == nil), "a token was to be chosen exactly if planned")
        var events: [GenerationEvent] = []
        // Rows after a rejected draft token must be computed again.
        let wrong = chunk.sample == nil ? 0 : chunk.sampledRows.count - found.sampled.count
        state.computed += chunk.tokens.count - wrong
        state.planned -= wrong
        state.drafts = found.drafts
        counters.promptTokens += UInt64(state.countPrompt())
        if let scores = state.takePromptScores(found.scored) { events.append(.promptLogProbs(scores)) }
        if state.mode == .prefill {
            sequences[chunk.request] = state
            return (events, false)
        }
        var reason: FinishReason?
        if !chunk.drafts.isEmpty {
            let speculated = SpeculationCount(steps: 1, drafted: chunk.drafts.count, accepted: found.sampled.count - 1)
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
    /// Returns whether a chunk that was just computed contains prompt tokens and fills a page.
    fileprivate func filledPrompt(by chunk: StepPlan.Chunk, pageSize: Int) -> Bool {
        chunk.start < promptCount && computed / pageSize > chunk.start / pageSize
    }

    /// Returns how many prompt tokens were computed, or found in the cache, for the first time since the last call.
    mutating func countPrompt() -> Int {
        let reached = max(min(computed, promptCount), countedPrompt)
        defer { countedPrompt = reached }
        return reached - countedPrompt
    }

    /// Returns the prompt scores to report now, and advances past them. A prompt's first token has no score, because
    /// nothing precedes it.
    fileprivate mutating func takePromptScores(_ scored: [TokenLogProbs]) -> [TokenLogProbs]? {
        guard let next = nextPromptScore else { return nil }
        let report = next == 0 ? [TokenLogProbs(token: tokens[0])] + scored : scored
        nextPromptScore = next + report.count < promptCount ? next + report.count : nil
        return report.isEmpty ? nil : report
    }
}
