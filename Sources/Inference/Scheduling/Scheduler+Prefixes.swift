import KVCache

/// The scheduler reuses pages that are already in the prefix cache.
///
/// Pages that are found become the first pages of a request. They are never written again: a request writes only later
/// positions, in pages of its own.
extension Scheduler {
    /// Frees all cached pages that no request uses, and returns their number.
    package mutating func flushCache() -> Int { cache.flush(&pool, windows: &windowPool) }

    /// Gives an admitted request the pages of its longest prefix in the cache.
    mutating func takePrefix(_ id: UInt64) {
        guard configuration.prefixCache else { return }
        holdPrefix(id)
        let state = sequences[id]!
        // A preempted request finds its own pages, which says nothing about its prompt.
        guard state.cachedTokens == nil else { return }
        sequences[id]!.cachedTokens = state.computed
        counters.lookupTokens += UInt64(state.promptCount)
        counters.hitTokens += UInt64(state.computed)
    }

    /// Gives a request without pages those of its longest prefix in the cache.
    mutating func holdPrefix(_ id: UInt64) {
        let state = sequences[id]!
        let known = identity(of: state, positions: state.reusablePositions)
        let pages = cache.match(known.tokens, salt: salt(of: known), in: &pool)
        hold(pages, by: id)
        if configuration.window > 0 {
            sequences[id]!.windowPages = cache.matchWindows(of: pages, in: &windowPool)
            sequences[id]!.firstWindowPage = pages.count - sequences[id]!.windowPages.count
            sequences[id]!.lacksWindow = !pages.isEmpty
        }
    }

    /// Gives a request without pages those that were found in the cache; it is an owner of each already.
    mutating func hold(_ pages: [Int32], by id: UInt64) {
        let count = pages.count * pool.pageSize
        sequences[id]!.pages = pages
        sequences[id]!.sharedPages = pages.count
        sequences[id]!.computed = count
        sequences[id]!.planned = count
    }

    /// Returns the number of a request's prompt tokens that were found in the cache; `nil` before they were looked up.
    func cachedTokens(of id: UInt64) -> Int? { sequences[id]?.cachedTokens }

    /// Returns the cached pages that a queued request would begin with.
    func knownPages(of state: SequenceState) -> [Int32] {
        guard configuration.prefixCache else { return [] }
        let known = identity(of: state, positions: state.reusablePositions)
        return cache.find(known.tokens, salt: salt(of: known))
    }

    /// True if each data group has only the keys that its own ranks have computed or restored.
    var groupsKeepKeysApart: Bool { configuration.dataGroups > 1 && !configuration.groupsShareKeys }

    /// Returns the salt of a request's pages. Requests with different salts share no pages.
    func salt(of state: SequenceState) -> String? { salt(state.cacheSalt, ofGroup: state.group) }

    /// Returns the salt under which the cache keeps a prefix.
    func salt(of prefix: IdentifiedPrefix) -> String? { salt(prefix.salt, ofGroup: prefix.group) }

    private func salt(_ salt: String?, ofGroup group: Int) -> String? {
        groupsKeepKeysApart ? "\(group) \(salt.map { "salt \($0)" } ?? "")" : salt
    }

    /// Adds a running request's computed pages to the prefix cache. Steps in flight write only later positions.
    mutating func share(_ id: UInt64) {
        guard configuration.prefixCache else { return }
        let state = sequences[id]!
        let known = identity(of: state, positions: state.computed)
        cache.insert(known.tokens, pages: state.pages[...], salt: salt(of: known), in: &pool)
        keepWindows(of: state, known)
        noteStorable(state, known)
    }

    private mutating func keepWindows(of state: SequenceState, _ known: IdentifiedPrefix) {
        // Received window entries may begin in the middle of a page, which no other request can use.
        let partial = max(0, pool.pages(holding: state.firstWindowEntry) - state.firstWindowPage)
        cache.keepWindows(
            Array(state.windowPages.dropFirst(partial)), from: state.firstWindowPage + partial, holding: known.tokens,
            salt: salt(of: known), in: &windowPool)
    }

    /// Releases all pages of a request that no step in flight writes. Valid pages stay in the prefix cache until they
    /// are evicted.
    mutating func releasePages(of state: SequenceState) {
        let isKept = configuration.prefixCache && !state.hasInvalidKV
        let known = identity(of: state, positions: isKept ? state.computed : 0)
        cache.release(state.pages, holding: known.tokens, salt: salt(of: known), in: &pool)
        keepWindows(of: state, known)
        windowPool.release(state.windowPages)
        noteStorable(state, known)
    }

    /// Returns what identifies the keys of a request's first positions: one token per position, a salt, and the data
    /// group that has them.
    ///
    /// Without drafts those are the positions' own tokens. The next-token block's key of a position also depends on the
    /// following token; with drafts a position is therefore identified by the token after it, and the request's first
    /// token becomes part of the salt.
    func identity(of state: SequenceState, positions: Int) -> IdentifiedPrefix {
        let group = groupsKeepKeysApart ? state.group : 0
        guard configuration.drafts > 0 else {
            return IdentifiedPrefix(tokens: state.tokens[..<positions], salt: state.cacheSalt, group: group)
        }
        let following = state.tokens[1..<min(positions + 1, state.tokens.count)]
        let salt = "\(state.tokens[0])" + (state.cacheSalt.map { " " + $0 } ?? "")
        return IdentifiedPrefix(tokens: following, salt: salt, group: group)
    }
}

extension SequenceState {
    /// The number of positions whose keys may come from the cache. The last token must be computed, as its logits
    /// choose the next one; so must the token before each prompt token that is to be scored.
    var reusablePositions: Int {
        min(nextPromptScore.map { max($0 - 1, 0) } ?? tokens.count, tokens.count - 1)
    }
}
