import KVCache

extension Scheduler {
    /// Returns the plan of the next step; `nil` when nothing can be computed before a step in flight returns.
    ///
    /// While steps are in flight, the next one contains what does not depend on their results: further chunks of
    /// prompts, and requests whose newest token is known.
    package mutating func nextStep() -> StepPlan? {
        guard inFlight.count < configuration.maxStepsInFlight else { return nil }
        for entry in running.entries where sequences[entry.request]!.preemptionRequested {
            sequences[entry.request]!.preemptionRequested = false
        }
        admit()
        if !reserving.isEmpty { reserveReceptions() }
        var decodes = decodesPerStep
        let decoding = decodingRequests
        var prefillRows = configuration.maxRowsPerStep - min(decoding.count, decodes) * (1 + configuration.drafts)
        var chunks: [StepPlan.Chunk] = []
        for request in turns(of: decoding, places: decodes) {
            // An earlier request of this loop may have preempted this one.
            guard let state = sequences[request], state.phase == .running, !state.preemptionRequested else { continue }
            let wanted = state.isDecoding ? min(1, decodes) : min(rowsWanted(state), prefillRows)
            let rows = takePages(for: request, rows: wanted)
            guard rows > 0 else { continue }
            if state.isDecoding { decodes -= rows } else { prefillRows -= rows }
            let speculation = configuration.drafts > 0 ? speculate(for: request, behind: rows) : nil
            chunks.append(sequences[request]!.chunk(rows: rows, speculation))
            chunks[chunks.count - 1].windowSources = takeWindowSources(of: request)
            sequences[request]!.planned += chunks.last!.tokens.count
            sequences[request]!.stepsInFlight += 1
            sequences[request]!.lastPlan = counters.plans
        }
        guard !chunks.isEmpty else { return nil }
        var plan = StepPlan(number: counters.plans, chunks: chunks)
        for chunk in chunks where chunk.sample?.isConstrained ?? false { announceGrammar(of: chunk.request, in: &plan) }
        (plan.endedGrammars, endedGrammars) = (endedGrammars, [])
        counters.plans += 1
        windowOwners?.note(plan)
        inFlight.append(plan)
        for chunk in chunks where sequences[chunk.request]!.mode == .prefill { announceKeys(of: chunk.request) }
        return plan
    }

    private mutating func announceGrammar(of request: UInt64, in plan: inout StepPlan) {
        guard let state = sequences[request], let source = state.grammar, !state.isGrammarAnnounced else { return }
        plan.grammars.append(StepPlan.RequestGrammar(request: request, source: source))
        sequences[request]!.isGrammarAnnounced = true
    }

    /// Returns the running requests in the order in which they are given rows.
    ///
    /// If more requests decode than a step has rows for, those that have waited longest go first. The others come last,
    /// and get the rows of requests that cannot have the pages they need.
    private func turns(of decoding: [UInt64], places: Int) -> [UInt64] {
        let order = running.entries.map(\.request)
        guard decoding.count > places else { return order }
        let longestWaiting = decoding.enumerated().sorted {
            (sequences[$0.element]!.lastPlan, $0.offset) < (sequences[$1.element]!.lastPlan, $1.offset)
        }.map(\.element)
        let others = longestWaiting.dropFirst(places)
        let late = Set(others)
        return order.filter { !late.contains($0) } + others
    }

    /// The running requests that decode, in the order of service.
    private var decodingRequests: [UInt64] {
        running.entries.map(\.request).filter { sequences[$0]!.isDecoding }
    }

    /// The number of decode rows per step with which all steps in flight together contain every decoding request once.
    private var decodesPerStep: Int {
        let decoding = running.entries.count { sequences[$0.request]!.generatedCount > 0 }
        return max(1, (decoding + configuration.maxStepsInFlight - 1) / configuration.maxStepsInFlight)
    }

    /// Moves requests from the queue to the running ones while the first of the queue fits, preempting running requests
    /// of lower precedence where necessary.
    private mutating func admit() {
        while let candidate = queue.first {
            // The group comes first: which pages the request finds may depend on it.
            let state = sequences[candidate.request]!
            if !state.isPrefillAnnounced, !state.keepsGroup { sequences[candidate.request]!.group = idlestGroup }
            let sooner = running.entries.prefix { $0.precedence < candidate.precedence }
            guard fits(candidate, beside: sooner), rowsWanted(by: sooner) < configuration.maxRowsPerStep else { return }
            while !fits(candidate, beside: running.entries[...]) {
                guard preemptLast() else { return }
            }
            queue.remove(at: candidate.precedence)
            running.insert(candidate.request, at: candidate.precedence)
            sequences[candidate.request]!.phase = .running
            sequences[candidate.request]!.keepsGroup = false
            takePrefix(candidate.request)
            if sequences[candidate.request]!.mode != .none { beginTransfer(of: candidate.request) }
        }
    }

    /// The data group whose running requests, and those that wait for keys of one group, have the fewest tokens.
    var idlestGroup: Int {
        var tokens = [Int](repeating: 0, count: configuration.dataGroups)
        for entry in running.entries {
            let state = sequences[entry.request]!
            tokens[state.group] += state.tokens.count
        }
        if storedBlock != nil, groupsKeepKeysApart {
            for state in sequences.values where state.phase == .restoring || state.keepsGroup {
                tokens[state.group] += state.tokens.count
            }
        }
        return tokens.indices.min { tokens[$0] < tokens[$1] }!
    }

    /// Returns whether a request fits beside others, whose pages needed soon count as used.
    private func fits(_ candidate: ServiceOrder.Entry, beside others: ArraySlice<ServiceOrder.Entry>) -> Bool {
        guard others.count < configuration.maxRunningRequests else { return false }
        let most = others.reduce(pagesNeededSoon(candidate)) { $0 + pagesNeededSoon($1) }
        return most <= pool.totalPages || most - pagesCountedTwice(candidate, others) <= pool.totalPages
    }

    /// Returns how many pages are counted repeatedly if shared pages count once for each request.
    private func pagesCountedTwice(_ candidate: ServiceOrder.Entry, _ others: ArraySlice<ServiceOrder.Entry>) -> Int {
        guard configuration.prefixCache else { return 0 }
        var isCounted = [Bool](repeating: false, count: pool.totalPages)
        var again = 0
        let runs = others.map { sequences[$0.request]!.pages } + [knownPages(of: sequences[candidate.request]!)]
        for page in runs.joined() {
            again += isCounted[Int(page)] ? 1 : 0
            isCounted[Int(page)] = true
        }
        return again
    }

    /// Returns the pages of a request's tokens and of one more page's worth of growth, never more than the request can
    /// need at all. The growth avoids admitting a request only to preempt it some steps later.
    private func pagesNeededSoon(_ entry: ServiceOrder.Entry) -> Int {
        let state = sequences[entry.request]!
        return max(
            state.pages.count, pool.pages(holding: min(state.tokens.count + pool.pageSize, state.finalLength)))
    }

    private func rowsWanted(by entries: ArraySlice<ServiceOrder.Entry>) -> Int {
        entries.reduce(0) { $0 + rowsWanted(sequences[$1.request]!) }
    }

    private func rowsWanted(_ state: SequenceState) -> Int {
        if state.phase == .receiving { return 0 }
        return min(
            state.unplanned,
            configuration.dynamicChunks ? chunkSizer.rows(after: state.planned) : configuration.prefillChunk)
    }

    /// Allocates pages for a running request's next `rows` positions, evicting cached pages first and then preempting
    /// requests of lower precedence. Returns how many of the rows have pages now.
    mutating func takePages(for id: UInt64, rows: Int) -> Int {
        let state = sequences[id]!
        let rows = windowReach(of: id, until: state.planned + rows) - state.planned
        let missing = max(0, pool.pages(holding: state.planned + rows) - state.pages.count)
        while pool.freePages < missing {
            if cache.evict(missing - pool.freePages, from: &pool, windows: &windowPool) > 0 { continue }
            if stopRestoring(behind: state) { continue }
            guard let last = running.last, state.precedence < last.precedence, preemptLast() else { break }
        }
        if let pages = pool.allocate(min(missing, pool.freePages)) {
            sequences[id]!.pages += pages
        }
        let end = min(state.planned + rows, sequences[id]!.pages.count * pool.pageSize)
        takeWindowPages(for: id, until: end)
        return end - state.planned
    }

    /// Up to which position, `end` at most, there are window pages for a running request: those that the cache keeps give
    /// way, no other request does (`SchedulerConfiguration.minWindowPages`).
    private mutating func windowReach(of id: UInt64, until end: Int) -> Int {
        guard configuration.window > 0 else { return end }
        let missing = missingWindowPages(of: sequences[id]!, until: end)
        if windowPool.freePages < missing {
            cache.evictWindows(missing - windowPool.freePages, from: &windowPool)
        }
        let state = sequences[id]!
        let pages = state.firstWindowPage + state.windowPages.count + windowPool.freePages
        return min(end, pages * pool.pageSize)
    }

    /// Gives a running request the window pages of its positions before `end`; there must be as many.
    private mutating func takeWindowPages(for id: UInt64, until end: Int) {
        guard configuration.window > 0 else { return }
        guard let pages = allocateWindowPages(missingWindowPages(of: sequences[id]!, until: end)) else {
            preconditionFailure("\(windowPool.freePages) window pages are free, too few for request \(id)")
        }
        sequences[id]!.windowPages += pages
    }

    private func missingWindowPages(of state: SequenceState, until end: Int) -> Int {
        max(0, pool.pages(holding: end) - state.firstWindowPage - state.windowPages.count)
    }

    /// Returns how many draft tokens a request's next step verifies and makes. Draft tokens use only pages that are
    /// free or cached; no request is preempted for them.
    private mutating func speculate(for id: UInt64, behind rows: Int) -> StepPlan.Chunk.Speculation {
        let state = sequences[id]!
        let end = state.planned + rows
        guard end == state.tokens.count else { return StepPlan.Chunk.Speculation() }
        let drafted = min(state.drafts.count, state.acceptedDrafts)
        // The step itself samples one token, and the first draft after it comes from that token's row.
        let ahead = min(configuration.drafts, max(state.acceptedDrafts - 1, 0))
        let last = min(end + drafted + max(ahead - 1, 0), state.finalLength)
        let missing = pool.pages(holding: last) - state.pages.count
        if pool.freePages < missing { cache.evict(missing - pool.freePages, from: &pool, windows: &windowPool) }
        if let pages = pool.allocate(min(max(missing, 0), pool.freePages)) { sequences[id]!.pages += pages }
        let reach = windowReach(of: id, until: min(last, sequences[id]!.pages.count * pool.pageSize))
        takeWindowPages(for: id, until: reach)
        let room = reach - end
        return StepPlan.Chunk.Speculation(drafted: min(drafted, room), ahead: ahead)
    }

    /// Preempts the running request with the lowest precedence: takes its pages and queues it for recomputation.
    ///
    /// - Returns: `false` if steps in flight still write its pages. The request then gets no new steps, and can be
    ///   preempted later.
    private mutating func preemptLast() -> Bool {
        guard let last = running.last else { preconditionFailure("no running request to preempt") }
        let state = sequences[last.request]!
        if state.stepsInFlight > 0 {
            sequences[last.request]!.preemptionRequested = true
            return false
        }
        running.remove(at: last.precedence)
        forgetKeys(of: last.request)
        if state.phase == .receiving {
            transferActions.append(.cancel(last.request))
            awaitPrefill(last.request)
        } else {
            if state.isSending { transferActions.append(.pauseSending(last.request)) }
            queue.insert(last.request, at: last.precedence)
            sequences[last.request]!.phase = .queued
        }
        // A request that was admitted but not yet computed loses nothing.
        if state.pages.count > state.sharedPages { counters.preemptions += 1 }
        return true
    }

    /// Releases a request's pages and starts its state anew: it has computed nothing.
    mutating func forgetKeys(of id: UInt64) {
        releasePages(of: sequences[id]!)
        reserving.remove(id)
        sequences[id]!.pages = []
        sequences[id]!.windowPages = []
        sequences[id]!.firstWindowPage = 0
        sequences[id]!.firstWindowEntry = 0
        sequences[id]!.lacksWindow = false
        sequences[id]!.sharedPages = 0
        sequences[id]!.drafts = []
        sequences[id]!.computed = 0
        sequences[id]!.planned = 0
    }
}
