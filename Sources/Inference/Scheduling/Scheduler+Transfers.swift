import KVCache

/// Requests whose prompt is computed by one server and whose tokens are computed by another one.
///
/// In mode `decode` a request asks the other server for its prefill and waits without pages (`awaitingPeer`). When the
/// other server has begun, it is queued at its precedence. When it is admitted, it takes what its own prefix cache has,
/// reserves pages for the rest (`receiving`), and runs when all keys and the first token have arrived. In mode
/// `prefill` a request is computed like any other. Its pages are kept for sending (`sending`) only if the other server
/// has reserved pages; otherwise the request waits without pages (`awaitingPeer`), and finds what is left of them in
/// the prefix cache when the other server is ready. So neither server's pages wait for the other's.
extension Scheduler {
    /// Returns the actions that were not returned yet.
    package mutating func takeTransferActions() -> [TransferAction] {
        defer { transferActions = [] }
        return transferActions
    }

    /// Returns the actions of some requests that were not returned yet. Those of others stay.
    package mutating func takeTransferActions(of requests: Range<UInt64>) -> [TransferAction] {
        let taken = transferActions.filter { requests.contains($0.request) }
        if !taken.isEmpty { transferActions.removeAll { requests.contains($0.request) } }
        return taken
    }

    /// True if there are actions that `takeTransferActions` has not returned yet.
    package var hasTransferActions: Bool { !transferActions.isEmpty }

    // MARK: - Decode

    /// Asks for a request's prefill. The request must be in no list and hold no pages.
    mutating func awaitPrefill(_ id: UInt64, attempt: Int = 1) {
        sequences[id]!.phase = .awaitingPeer
        sequences[id]!.prefillAttempt = attempt
        awaitingPeer.insert(id)
        let state = sequences[id]!
        let missing = state.tokens.count - knownPages(of: state).count * pool.pageSize
        transferActions.append(.requestPrefill(id, state.prefillRequest, missing: missing, attempt: attempt))
    }

    /// A request's prefill is asked for at this server. The next `requestPrefill` for it names the server: to ask there again
    /// after a preemption, because what is computed stays in its cache, and elsewhere after a loss.
    package mutating func prefillIsAsked(_ id: UInt64, of server: Int) { sequences[id]?.prefillServer = server }

    /// The other server has begun to compute a request's prompt: the request is queued. Requests that do not wait for
    /// that are ignored.
    package mutating func prefillStarted(_ id: UInt64) {
        guard let state = sequences[id], state.mode == .decode, state.phase == .awaitingPeer else { return }
        enqueueLate(id)
    }

    /// Begins with the transfer of a request that was just admitted.
    mutating func beginTransfer(of id: UInt64) {
        let state = sequences[id]!
        if state.mode == .decode {
            sequences[id]!.phase = .receiving
            reserving.insert(id)
            skipWindowPages(of: id)
        } else if !state.isPrefillAnnounced {
            sequences[id]!.isPrefillAnnounced = true
            transferActions.append(.prefillStarted(id, group: state.group))
        }
    }

    /// Releases those window pages of an admitted request which no row sees after the prompt or its last page border.
    private mutating func skipWindowPages(of id: UInt64) {
        guard configuration.window > 0 else { return }
        let state = sequences[id]!
        let first = CacheFormat.firstWindowPage(
            before: state.tokens.count, window: configuration.window, pageSize: pool.pageSize)
        let skipped = min(max(first - state.firstWindowPage, 0), state.windowPages.count)
        windowPool.release(Array(state.windowPages.prefix(skipped)))
        sequences[id]!.windowPages.removeFirst(skipped)
        sequences[id]!.firstWindowPage = max(first, state.firstWindowPage)
        sequences[id]!.firstWindowEntry = sequences[id]!.firstWindowPage * pool.pageSize
    }

    /// Gives requests that receive keys the pages of their prompts, in the order of service.
    mutating func reserveReceptions() {
        for entry in running.entries where reserving.contains(entry.request) {
            // An earlier request of this loop may have preempted this one.
            guard let state = sequences[entry.request], state.phase == .receiving else { continue }
            let rows = state.tokens.count - state.computed
            guard takePages(for: entry.request, rows: rows) == rows else { return }
            reserving.remove(entry.request)
            let reserved = sequences[entry.request]!
            let start = max(reserved.firstWindowEntry, reserved.computed)
            transferActions.append(
                .receive(
                    entry.request,
                    KVReservation(
                        pages: reserved.keyPages, group: reserved.group,
                        positions: reserved.computed..<reserved.tokens.count,
                        windowStart: configuration.window > 0 ? start : reserved.tokens.count)))
        }
    }

    /// Reports scores of prompt tokens that the other server has computed, and returns the events. Scores that are not
    /// those of the next prompt tokens are ignored; the request then has to compute them.
    package mutating func takePrefillScores(_ id: UInt64, _ scores: [TokenLogProbs]) -> [Event] {
        guard let state = sequences[id], state.mode == .decode, let next = state.nextPromptScore, !scores.isEmpty,
            scores.count <= state.promptCount - next,
            zip(scores, state.tokens[next...]).allSatisfy({ $0.token == $1 })
        else { return [] }
        let end = next + scores.count
        sequences[id]!.nextPromptScore = end < state.promptCount ? end : nil
        return [Event(request: id, event: .promptLogProbs(scores))]
    }

    /// All keys of a request's prompt and its first token have arrived: the request runs. Requests that wait for no
    /// keys are ignored.
    ///
    /// - Parameter windowStart: The position from which on entries of window sets have arrived.
    package mutating func received(_ id: UInt64, _ result: PrefillResult, windowStart: Int) -> [Event] {
        guard let old = sequences[id], old.phase == .receiving, !reserving.contains(id) else { return [] }
        let wantsToken = old.newTokenLimit > 0
        guard old.nextPromptScore == nil, (result.token != nil) == wantsToken,
            result.token.map({ (0..<Int32(limits.vocabularySize)).contains($0.token) }) ?? true
        else { return prefillLost(id, .local(reached: old.tokens.count)) }
        var state = sequences.removeValue(forKey: id)!
        if windowStart > state.computed { state.firstWindowEntry = windowStart }
        state.phase = .running
        state.mode = .none
        state.computed = state.tokens.count
        state.planned = state.tokens.count
        state.cachedTokens = max(state.cachedTokens ?? 0, min(result.cachedTokens, state.promptCount))
        counters.promptTokens += UInt64(state.countPrompt())
        var (events, reason): ([GenerationEvent], FinishReason?) = ([], .length)
        if let token = result.token {
            state.tokens.append(token.token)
            state.drafts = Array(result.drafts.prefix(configuration.drafts))
            counters.generatedTokens += 1
            events.append(.token(token))
            reason = state.finishReason(after: token.token)
        }
        if let reason { events.append(.finished(reason, state.usage)) }
        sequences[id] = state
        if reason != nil { end(id) } else { share(id) }
        return events.map { Event(request: id, event: $0) }
    }

    /// The other server does not compute a request's prompt any more, or its keys have not arrived. Requests that have
    /// no prefill on another server are ignored. `takeTransferActions` returns no `cancel` for it.
    package mutating func prefillLost(_ id: UInt64, _ recovery: PrefillRecovery) -> [Event] {
        guard let state = sequences[id], state.mode == .decode else { return [] }
        if state.phase == .queued { queue.remove(at: state.precedence) }
        awaitingPeer.remove(id)
        switch recovery {
        case .fail(let reason, let reached):
            sequences[id]!.mode = .none
            keepReceived(id, reached)
            if state.phase == .receiving { running.remove(at: state.precedence) }
            sequences[id]!.phase = .draining
            remove(id)
            return [Event(request: id, event: .failed(reason))]
        case .again(let reached):
            if state.phase == .receiving { leaveRunning(id, reached) }
            awaitPrefill(id, attempt: state.prefillAttempt + 1)
        case .local(let reached):
            sequences[id]!.mode = .none
            if state.phase == .receiving, configuration.window == 0 {
                reserving.remove(id)
                sequences[id]!.phase = .running
                keepReceived(id, reached)
            } else {
                if state.phase == .receiving { leaveRunning(id, reached) }
                enqueueLate(id)
            }
        }
        return []
    }

    private mutating func leaveRunning(_ id: UInt64, _ reached: Int) {
        running.remove(at: sequences[id]!.precedence)
        keepReceived(id, reached)
        forgetKeys(of: id)
    }

    /// Counts the received keys before a position as computed, as far as rows after them can be computed: rows also
    /// need the entries of windows, which arrive last.
    private mutating func keepReceived(_ id: UInt64, _ reached: Int) {
        let state = sequences[id]!
        guard configuration.window == 0, !state.pages.isEmpty else { return }
        let usable = min(reached, state.reusablePositions, state.pages.count * pool.pageSize)
        sequences[id]!.computed = max(state.computed, usable)
        sequences[id]!.planned = sequences[id]!.computed
    }

    /// Queues a request that has waited outside of the queue.
    mutating func enqueueLate(_ id: UInt64) {
        awaitingPeer.remove(id)
        restoring.remove(id)
        sequences[id]!.phase = .queued
        sequences[id]!.wasQueuedLate = true
        queue.insert(id, at: sequences[id]!.precedence)
    }

    // MARK: - Prefill

    /// The other server has reserved pages for a request's keys. A prompt that was computed, and whose pages were given
    /// up, is queued again. Requests in other modes are ignored.
    package mutating func startSending(_ id: UInt64) {
        guard let state = sequences[id], state.mode == .prefill, !state.isSending else { return }
        sequences[id]!.isSending = true
        if state.phase == .awaitingPeer {
            enqueueLate(id)
        } else if state.phase == .running {
            announceKeys(of: id)
        }
    }

    /// Ends a request whose keys have been sent.
    package mutating func finishSending(_ id: UInt64) {
        guard let state = sequences[id], state.phase == .sending else { return }
        sequences[id]!.mode = .none
        remove(id)
    }

    /// Lets the keys of a prompt be sent that are computed or that a step in flight computes, if the other server has
    /// reserved pages.
    mutating func announceKeys(of id: UInt64) {
        let state = sequences[id]!
        guard state.isSending else { return }
        let steps = inFlight.flatMap { plan in
            plan.chunks.filter { $0.request == id }
                .map { PromptProgress.Step(number: plan.number, end: $0.start + $0.tokens.count) }
        }
        guard state.computed > 0 || !steps.isEmpty else { return }
        transferActions.append(
            .send(id, state.keyPages, PromptProgress(computed: state.computed, steps: steps)))
    }

    /// Reports the progress of a prompt that is computed for another server.
    mutating func advancePrefill(_ id: UInt64, _ found: StepResult.ChunkResult) {
        let state = sequences[id]!
        announceKeys(of: id)
        guard state.computed == state.tokens.count else { return }
        let result = PrefillResult(
            token: found.sampled.first, drafts: found.drafts, cachedTokens: state.cachedTokens ?? 0)
        transferActions.append(.prefilled(id, result))
        running.remove(at: state.precedence)
        if state.isSending {
            sequences[id]!.phase = .sending
        } else {
            forgetKeys(of: id)
            sequences[id]!.phase = .awaitingPeer
            awaitingPeer.insert(id)
        }
    }
}

extension Scheduler {
    /// The violated invariants of requests whose prompt and tokens different servers compute.
    var transferProblems: [String] {
        var problems: [String] = []
        for state in sequences.values {
            if awaitingPeer.contains(state.id) != (state.phase == .awaitingPeer) {
                problems.append("\(state.id) is \(state.phase), and the list of those that wait disagrees")
            }
            if reserving.contains(state.id) && state.phase != .receiving {
                problems.append("\(state.id) reserves pages and is \(state.phase)")
            }
            let legal: [DisaggregationMode] =
                switch state.phase {
                case .queued, .draining: [.none, .prefill, .decode]
                case .running, .restoring: [.none, .prefill]
                case .awaitingPeer: [.prefill, .decode]
                case .receiving: [.decode]
                case .sending: [.prefill]
                }
            if !legal.contains(state.mode) { problems.append("\(state.id) is \(state.phase) in mode \(state.mode)") }
            if state.phase == .sending && !state.isSending { problems.append("\(state.id) sends unasked") }
        }
        if !awaitingPeer.union(reserving).allSatisfy({ sequences[$0] != nil }) {
            problems.append("a request that does not exist waits for another server")
        }
        return problems
    }
}

extension SequenceState {
    var keyPages: KVPages { KVPages(pages: pages, windowPages: windowPages, firstWindowPage: firstWindowPage) }

    /// The request as another server computes its prompt. That server need not have space for the answer.
    fileprivate var prefillRequest: GenerationRequest {
        var request = GenerationRequest(
            prompt: tokens, sampling: sampling, logProbs: logProbs, priority: precedence.priority,
            cacheSalt: cacheSalt, grammar: grammar)
        request.logProbs?.promptStart = nextPromptScore
        request.sampling.maxNewTokens = newTokenLimit == 0 ? 0 : nil
        request.sampling.minNewTokens = min(sampling.minNewTokens, 1)
        request.mode = .prefill
        (request.prefillServer, request.room) = (prefillServer, room)
        return request
    }
}
