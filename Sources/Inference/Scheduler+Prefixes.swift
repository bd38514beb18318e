import KVCache

/// How the scheduler uses pages that are in the cache already.
///
/// What is found becomes the head of a request's pages. Those are never written again: a request only writes
/// positions behind what it found, which are in pages of its own.
extension Scheduler {
    /// Forgets all pages that no request uses; those in use stay. Returns how many that were.
    package mutating func flushCache() -> Int { cache.flush(&pool) }

    /// Lets a request that is admitted begin behind the longest prefix that is in the cache.
    mutating func takePrefix(_ id: UInt64) {
        guard configuration.prefixCache else { return }
        let state = sequences[id]!
        let pages = cache.match(state.reusableTokens, salt: state.cacheSalt, in: &pool)
        let count = pages.count * pool.pageSize
        sequences[id]!.pages = pages
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
        configuration.prefixCache ? cache.find(state.reusableTokens, salt: state.cacheSalt) : []
    }

    /// Lets later requests find what a running one has computed. Steps in flight write behind that.
    mutating func share(_ id: UInt64) {
        guard configuration.prefixCache else { return }
        let state = sequences[id]!
        cache.insert(state.tokens[..<state.computed], pages: state.pages[...], salt: state.cacheSalt, in: &pool)
    }

    /// Takes all pages from a request that no step in flight writes; what it computed stays known while nobody needs
    /// the room.
    mutating func releasePages(of state: SequenceState) {
        let isKept = configuration.prefixCache && !state.isUnsound
        cache.release(
            state.pages, holding: state.tokens[..<(isKept ? state.computed : 0)], salt: state.cacheSalt, in: &pool)
    }
}

extension SequenceState {
    /// The tokens whose keys need not be computed if they are known. The last token's logits choose the next one, and
    /// those of the token before a prompt token score it.
    fileprivate var reusableTokens: ArraySlice<Int32> {
        let unscored = nextPromptScore.map { max($0 - 1, 0) } ?? tokens.count
        return tokens[..<min(unscored, tokens.count - 1)]
    }
}
