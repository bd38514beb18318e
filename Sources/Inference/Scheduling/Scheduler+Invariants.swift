import KVCache

extension Scheduler {
    /// Returns the violated invariants in words; empty when there are none. It is for tests and `--check-invariants`.
    ///
    /// The invariants: every page is free, cached and unused, or used by live requests or by requests that ended during
    /// a step in flight; only a cached page has several users. Every request is listed where its phase says. Among
    /// equal priorities no queued request arrived before a running one.
    package func checkInvariants() -> [String] {
        pool.checkInvariants() + cache.checkInvariants(pool) + pageProblems + windowProblems + placeProblems
            + orderProblems
    }

    private var windowProblems: [String] {
        guard configuration.window > 0 else {
            return sequences.values.filter { !$0.windowPages.isEmpty || $0.firstWindowPage != 0 }.map {
                "\($0.id) has window pages, and the model has no windows"
            }
        }
        var problems = windowPool.checkInvariants() + cache.checkWindows(windowPool)
        var users: [Int32: [UInt64]] = [:]
        for state in sequences.values {
            for page in state.windowPages { users[page, default: []].append(state.id) }
            let first = max(0, state.computed - configuration.window + 1)
            let held = state.firstWindowPage..<state.firstWindowPage + state.windowPages.count
            if state.planned > 0, state.phase == .running,
                held.lowerBound * pool.pageSize > first || held.upperBound * pool.pageSize < state.planned
            {
                problems.append(
                    "\(state.id) has window pages \(held) of \(pool.pageSize) for rows \(state.computed)..<\(state.planned)"
                )
            }
            if [.queued, .awaitingPeer].contains(state.phase) && !state.windowPages.isEmpty {
                problems.append("\(state.id) is \(state.phase) with window pages")
            }
        }
        let kept = cache.windowPages()
        for page in Set(users.keys).union(kept) {
            let owners = (users[page]?.count ?? 0) + (kept.contains(page) ? 1 : 0)
            if windowPool.owners(of: page) != owners {
                problems.append("window page \(page) has \(windowPool.owners(of: page)) owners, not \(owners)")
            }
            if let ids = users[page], ids.count > 1, Set(ids.map { salt(of: sequences[$0]!) }).count > 1 {
                problems.append("\(ids) differ in their salts")
            }
        }
        if Set(users.keys).union(kept).count != windowPool.usedPages {
            problems.append(
                "\(windowPool.usedPages) window pages are used, \(kept.count) kept, \(users.count) by requests")
        }
        return problems
    }

    private var pageProblems: [String] {
        var problems: [String] = []
        var users: [Int32: [UInt64]] = [:]
        for state in sequences.values {
            for page in state.pages { users[page, default: []].append(state.id) }
            if state.sharedPages * pool.pageSize > state.computed {
                problems.append("\(state.id) writes a page that it found in the cache")
            }
            if state.pages.count * pool.pageSize < state.planned {
                problems.append("\(state.id) planned \(state.planned) tokens in \(state.pages.count) pages")
            }
        }
        for (page, ids) in users {
            if pool.owners(of: page) != ids.count + (cache.holds(page) ? 1 : 0) {
                problems.append("page \(page) of \(ids) has \(pool.owners(of: page)) owners")
            }
            if ids.count > 1 && !cache.holds(page) { problems.append("page \(page) belongs to \(ids)") }
            if Set(ids.map { salt(of: sequences[$0]!) }).count > 1 { problems.append("\(ids) differ in their salts") }
        }
        if pool.freePages + cache.evictablePages + users.count != pool.totalPages {
            problems.append(
                "\(pool.freePages) pages are free, \(cache.evictablePages) cached and \(users.count) in use, of "
                    + "\(pool.totalPages)")
        }
        return problems
    }

    private var placeProblems: [String] {
        var problems: [String] = []
        let listed: [([SequenceState.Phase], ServiceOrder)] = [([.queued], queue), ([.running, .receiving], running)]
        for (phases, order) in listed {
            if order.count != sequences.values.count(where: { phases.contains($0.phase) }) {
                problems.append("\(order.count) requests are listed as \(phases)")
            }
            for entry in order.entries {
                guard let state = sequences[entry.request], phases.contains(state.phase),
                    state.precedence == entry.precedence
                else {
                    problems.append("\(entry.request) is listed as \(phases), but is not")
                    continue
                }
            }
        }
        problems += transferProblems + restoringProblems
        for state in sequences.values {
            let steps = inFlight.count { $0.chunks.contains { $0.request == state.id } }
            let isInFlight = steps > 0
            if steps != state.stepsInFlight {
                problems.append("\(state.id) is in \(steps) steps, not \(state.stepsInFlight)")
            }
            if state.planned < state.computed
                || isInFlight != (state.planned > state.computed) && state.phase != .draining
            {
                problems.append("\(state.id) computed \(state.computed), planned \(state.planned) in \(steps) steps")
            }
            if state.phase == .draining && !isInFlight { problems.append("\(state.id) is dying in no step") }
            if [.queued, .awaitingPeer].contains(state.phase)
                && (isInFlight || !state.pages.isEmpty || state.computed != 0)
            {
                problems.append("\(state.id) is \(state.phase) with pages or in a step")
            }
            if state.tokens.count > configuration.contextLength
                || state.computed >= state.tokens.count + (state.phase == .sending ? 1 : 0)
            {
                problems.append("\(state.id) has \(state.tokens.count) tokens, \(state.computed) computed")
            }
        }
        if running.count > configuration.maxRunningRequests { problems.append("\(running.count) requests run") }
        return problems
    }

    private var orderProblems: [String] {
        var problems: [String] = []
        for order in [queue, running] {
            for (sooner, later) in zip(order.entries, order.entries.dropFirst())
            where !(sooner.precedence < later.precedence) {
                problems.append("\(sooner.request) and \(later.request) are out of order")
            }
        }
        for waiting in queue.entries {
            for served in running.entries
            where waiting.precedence.priority == served.precedence.priority && waiting.precedence < served.precedence
                && !sequences[waiting.request]!.wasQueuedLate
            {
                problems.append("\(served.request) runs before \(waiting.request), which came first")
            }
        }
        return problems
    }
}
