import KVCache

/// How the scheduler uses pages that are in the cache already.
///
/// What is found becomes the head of a request's pages. Those are never written again: a request only writes
/// positions behind what it found, which are in pages of its own.
extension Scheduler {
    /// Forgets all pages that no request uses; those in use stay. Returns how many that were.
    package mutating func flushCache() -> Int { cache.flush(&pool, windows: &windowPool) }

    /// Lets a request that is admitted begin behind the longest prefix that is in the cache.
    mutating func takePrefix(_ id: UInt64) {
        guard configuration.prefixCache else { return }
        let state = sequences[id]!
        let known = identity(of: state, positions: state.reusablePositions)
        let pages = cache.match(known.tokens, salt: known.salt, in: &pool)
        let count = pages.count * pool.pageSize
        sequences[id]!.pages = pages
        if configuration.window > 0 {
            sequences[id]!.windowPages = cache.matchWindows(of: pages, in: &windowPool)
            sequences[id]!.firstWindowPage = pages.count - sequences[id]!.windowPages.count
        }
        sequences[id]!.sharedPages = pages.count
        sequences[id]!.computed = count
        sequences[id]!.planned = count
        // What a preempted request finds again says nothing of its prompt.
        guard state.cachedTokens == nil else { return }
        sequences[id]!.cachedTokens = count
        counters.lookupTokens += UInt64(state.promptCount)
        counters.hitTokens += UInt64(count)
    }

    /// The pages a queued request would begin with.
    func knownPages(of state: SequenceState) -> [Int32] {
        guard configuration.prefixCache else { return [] }
        let known = identity(of: state, positions: state.reusablePositions)
        return cache.find(known.tokens, salt: known.salt)
    }

    /// Requests for which this differs share no pages.
    func salt(of state: SequenceState) -> String? {
        guard configuration.dataGroups > 1, !configuration.groupsShareKeys else { return state.cacheSalt }
        return "\(state.group) \(state.cacheSalt.map { "salt \($0)" } ?? "")"
    }

    /// Lets later requests find what a running one has computed. Steps in flight write behind that.
    mutating func share(_ id: UInt64) {
        guard configuration.prefixCache else { return }
        let state = sequences[id]!
        let known = identity(of: state, positions: state.computed)
        cache.insert(known.tokens, pages: state.pages[...], salt: known.salt, in: &pool)
        keepWindows(of: state, known)
    }

    private mutating func keepWindows(of state: SequenceState, _ known: (tokens: ArraySlice<Int32>, salt: String?)) {
        cache.keepWindows(
            state.windowPages, from: state.firstWindowPage, holding: known.tokens, salt: known.salt, in: &windowPool)
    }

    /// Takes all pages from a request that no step in flight writes; what it computed stays known while nobody needs
    /// the room.
    mutating func releasePages(of state: SequenceState) {
        let isKept = configuration.prefixCache && !state.hasInvalidKV
        let known = identity(of: state, positions: isKept ? state.computed : 0)
        cache.release(state.pages, holding: known.tokens, salt: known.salt, in: &pool)
        keepWindows(of: state, known)
        windowPool.release(state.windowPages)
    }

    /// What the keys of a request's first positions depend on, and the name under which they are known: as many tokens
    /// as there are positions.
    ///
    /// That is their tokens. But the next-token block's key of a position depends on the token that follows, too. So
    /// where it guesses, a position is known by the token after it, and the first token belongs to the name.
    private func identity(of state: SequenceState, positions: Int) -> (tokens: ArraySlice<Int32>, salt: String?) {
        guard configuration.drafts > 0 else { return (state.tokens[..<positions], salt(of: state)) }
        let following = state.tokens[1..<min(positions + 1, state.tokens.count)]
        return (following, "\(state.tokens[0])" + (salt(of: state).map { " " + $0 } ?? ""))
    }
}

extension SequenceState {
    /// The positions whose keys need not be computed if they are known. The last token's logits choose the next one, and
    /// those of the token before a prompt token score it.
    fileprivate var reusablePositions: Int {
        min(nextPromptScore.map { max($0 - 1, 0) } ?? tokens.count, tokens.count - 1)
    }
}
