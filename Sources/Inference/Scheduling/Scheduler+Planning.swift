import KVCache

extension Scheduler {
    /// What the ranks compute next; `nil` when there is nothing to compute before a step in flight comes back.
    ///
    /// While steps are in flight, the next has what does not depend on their results: further chunks of prompts, and
    /// requests whose newest token is known.
    package mutating func nextStep() -> StepPlan? {
        guard inFlight.count < configuration.maxStepsInFlight else { return nil }
        for entry in running.entries where sequences[entry.request]!.preemptionRequested {
            sequences[entry.request]!.preemptionRequested = false
        }
        admit()
        var decodes = decodesPerStep
        let decoding = decodingRequests
        var prefillRows = configuration.maxRowsPerStep - min(decoding.count, decodes) * (1 + configuration.drafts)
        var chunks: [StepPlan.Chunk] = []
        for request in turns(of: decoding, places: decodes) {
            // A request before this one may have taken its pages and put it back into the queue.
            guard let state = sequences[request], state.phase == .running, !state.preemptionRequested else { continue }
            let wanted = state.isDecoding ? min(1, decodes) : min(rowsWanted(state), prefillRows)
            let rows = takePages(for: request, rows: wanted)
            guard rows > 0 else { continue }
            if state.isDecoding { decodes -= rows } else { prefillRows -= rows }
            let speculation = configuration.drafts > 0 ? speculate(for: request, behind: rows) : nil
            chunks.append(sequences[request]!.chunk(rows: rows, speculation))
            sequences[request]!.planned += chunks.last!.tokens.count
            sequences[request]!.stepsInFlight += 1
            sequences[request]!.lastPlan = counters.plans
        }
        guard !chunks.isEmpty else { return nil }
        var plan = StepPlan(number: counters.plans, chunks: chunks)
        for chunk in chunks where chunk.sample?.isConstrained ?? false { announceGrammar(of: chunk.request, in: &plan) }
        (plan.endedGrammars, endedGrammars) = (endedGrammars, [])
        counters.plans += 1
        inFlight.append(plan)
        return plan
    }

    private mutating func announceGrammar(of request: UInt64, in plan: inout StepPlan) {
        guard let state = sequences[request], let source = state.grammar, !state.isGrammarAnnounced else { return }
        plan.grammars.append(StepPlan.RequestGrammar(request: request, source: source))
        sequences[request]!.isGrammarAnnounced = true
    }

    /// The running requests in the order in which they are given rows.
    ///
    /// Where a step has fewer places than requests decode, it is the turn of those that have waited longest; the others
    /// come last, for the places of those that cannot have the pages they need.
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

    /// In the order of service.
    private var decodingRequests: [UInt64] {
        running.entries.map(\.request).filter { sequences[$0]!.isDecoding }
    }

    /// So many that all steps in flight together have every decoding request once.
    private var decodesPerStep: Int {
        let decoding = running.entries.count { sequences[$0.request]!.generatedCount > 0 }
        return max(1, (decoding + configuration.maxStepsInFlight - 1) / configuration.maxStepsInFlight)
    }

    /// Moves requests from the queue to the running ones while the first of them fits.
    private mutating func admit() {
        while let candidate = queue.first {
            // First: which pages it finds may depend on it.
            sequences[candidate.request]!.group = idlestGroup
            let sooner = running.entries.prefix { $0.precedence < candidate.precedence }
            guard fits(candidate, beside: sooner), rowsWanted(by: sooner) < configuration.maxRowsPerStep else { return }
            while !fits(candidate, beside: running.entries[...]) {
                guard preemptLast() else { return }
            }
            queue.remove(at: candidate.precedence)
            running.insert(candidate.request, at: candidate.precedence)
            sequences[candidate.request]!.phase = .running
            takePrefix(candidate.request)
        }
    }

    /// The data group with the fewest tokens to keep in mind.
    private var idlestGroup: Int {
        var tokens = [Int](repeating: 0, count: configuration.dataGroups)
        for entry in running.entries {
            let state = sequences[entry.request]!
            tokens[state.group] += state.tokens.count
        }
        return tokens.indices.min { tokens[$0] < tokens[$1] }!
    }

    /// Whether there are places and pages for a request beside others, counting what those will soon need as theirs.
    private func fits(_ candidate: ServiceOrder.Entry, beside others: ArraySlice<ServiceOrder.Entry>) -> Bool {
        guard others.count < configuration.maxRunningRequests else { return false }
        let most = others.reduce(pagesNeededSoon(candidate)) { $0 + pagesNeededSoon($1) }
        return most <= pool.totalPages || most - pagesCountedTwice(candidate, others) <= pool.totalPages
    }

    /// How often pages of common prefixes are counted more than once if each request's pages are.
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

    /// The pages of a request's tokens and of one more page's worth of growth. The growth keeps a request from being
    /// admitted only to be preempted some steps later; it never counts more than the request can ever need.
    private func pagesNeededSoon(_ entry: ServiceOrder.Entry) -> Int {
        let state = sequences[entry.request]!
        return max(
            state.pages.count, pool.pages(holding: min(state.tokens.count + pool.pageSize, state.finalLength)))
    }

    private func rowsWanted(by entries: ArraySlice<ServiceOrder.Entry>) -> Int {
        entries.reduce(0) { $0 + rowsWanted(sequences[$1.request]!) }
    }

    private func rowsWanted(_ state: SequenceState) -> Int {
        min(
            state.unplanned,
            configuration.dynamicChunks ? chunkSizer.rows(after: state.planned) : configuration.prefillChunk)
    }

    /// Gives a running request pages for its next `rows` positions, at the cost of the cache and then of the requests
    /// after it. Returns how many rows have their pages now.
    private mutating func takePages(for id: UInt64, rows: Int) -> Int {
        let state = sequences[id]!
        let rows = windowReach(of: id, until: state.planned + rows) - state.planned
        let missing = max(0, pool.pages(holding: state.planned + rows) - state.pages.count)
        while pool.freePages < missing {
            if cache.evict(missing - pool.freePages, from: &pool, windows: &windowPool) > 0 { continue }
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
        guard let pages = windowPool.allocate(missingWindowPages(of: sequences[id]!, until: end)) else {
            preconditionFailure("\(windowPool.freePages) window pages are free, too few for request \(id)")
        }
        sequences[id]!.windowPages += pages
    }

    private func missingWindowPages(of state: SequenceState, until end: Int) -> Int {
        max(0, pool.pages(holding: end) - state.firstWindowPage - state.windowPages.count)
    }

    /// How the next-token block takes part in a request's next `rows` rows. Guesses are computed, and made, as far as
    /// pages are there for them that nobody uses; no request loses any for them.
    private mutating func speculate(for id: UInt64, behind rows: Int) -> StepPlan.Chunk.Speculation {
        let state = sequences[id]!
        let end = state.planned + rows
        guard end == state.tokens.count else { return StepPlan.Chunk.Speculation() }
        let drafted = min(state.drafts.count, state.acceptedDrafts)
        // One token more will be known then. The first guess behind it comes of the row that chose it.
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

    /// Takes the pages of the running request last in order and puts it back into the queue, to be computed again.
    ///
    /// - Returns: false where steps in flight still write them: it gets no more of those, and gives way later.
    private mutating func preemptLast() -> Bool {
        guard let last = running.last else { preconditionFailure("no running request to preempt") }
        let state = sequences[last.request]!
        if state.stepsInFlight > 0 {
            sequences[last.request]!.preemptionRequested = true
            return false
        }
        running.remove(at: last.precedence)
        queue.insert(last.request, at: last.precedence)
        releasePages(of: state)
        sequences[last.request]!.pages = []
        sequences[last.request]!.windowPages = []
        sequences[last.request]!.firstWindowPage = 0
        sequences[last.request]!.sharedPages = 0
        sequences[last.request]!.drafts = []
        sequences[last.request]!.computed = 0
        sequences[last.request]!.planned = 0
        sequences[last.request]!.phase = .queued
        // One that was admitted and has not begun yet loses nothing.
        if state.pages.count > state.sharedPages { counters.preemptions += 1 }
        return true
    }
}
