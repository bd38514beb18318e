package import KVCache

/// Prefixes of prompts whose keys a prefix store keeps outside of the cache's memory.
///
/// With a store, a request whose prompt may continue there first waits outside of the queue (`restoring`), while those
/// behind it are served. It holds the prefix that the cache has, and pages for the next positions while the store fills
/// them. Filled pages join the prefix cache. In the end the request gives up all pages and is queued at its precedence;
/// when it is admitted, it finds them like any other prefix. If data groups keep their keys apart, they are restored for
/// one group, in which the request is then admitted.
///
/// Nothing is preempted for such pages, and no answer depends on how many positions were restored.
extension Scheduler {
    /// Returns the lookups that were not returned yet. The owner answers each with `endRestoring`.
    package mutating func takePrefixLookups() -> [PrefixLookup] {
        defer { prefixLookups = [] }
        return prefixLookups
    }

    /// Returns prefixes that have grown in the cache by a block, or more, and were not returned yet.
    package mutating func takeStorablePrefixes() -> [IdentifiedPrefix] {
        defer { storablePrefixes = [] }
        return storablePrefixes
    }

    /// Returns the pages in which the cache keeps the beginning of a prefix, in order, whether their windows are known or
    /// not. It changes nothing.
    package func cachedPages(of prefix: IdentifiedPrefix) -> [Int32] {
        cache.knownPages(of: prefix.tokens, salt(of: prefix))
    }

    /// Returns the window page in which the cache keeps the window before a position of a prefix, if the position is a
    /// page border, the cache has both, and every process of the data group has the window's entries. Pages must not be
    /// shorter than the window. It changes nothing.
    package func cachedWindow(of prefix: IdentifiedPrefix, before end: Int) -> CacheStore.PageList? {
        let pages = cachedPages(of: prefix)
        guard end > 0, end % pool.pageSize == 0, end / pool.pageSize <= pages.count,
            let windowPage = cache.windowPage(of: pages[end / pool.pageSize - 1]),
            windowOwners?.isWhole(windowPage) ?? true
        else { return nil }
        return CacheStore.PageList([windowPage], first: end / pool.pageSize - 1)
    }

    /// The number of positions by which a restored prefix grows: whole pages, and whole blocks of the store.
    package var restoredUnit: Int { max(storedBlock ?? 1, pool.pageSize) }

    /// Lets a new request wait for the store.
    ///
    /// - Returns: false if there is no store, or if it cannot have more of the prompt than the cache.
    mutating func awaitRestoring(_ id: UInt64) -> Bool {
        guard storedBlock != nil, configuration.prefixCache else { return false }
        // The group comes first: which pages the cache has may depend on it.
        sequences[id]!.group = idlestGroup
        let state = sequences[id]!
        var known = identity(of: state, positions: state.reusablePositions)
        known.tokens = known.tokens.prefix(known.tokens.count / restoredUnit * restoredUnit)
        guard known.tokens.count > knownPages(of: state).count * pool.pageSize else {
            if !known.tokens.isEmpty { keepGroup(of: id) }
            return false
        }
        sequences[id]!.phase = .restoring
        restoring.insert(id)
        prefixLookups.append(PrefixLookup(request: id, prefix: known))
        return true
    }

    /// Lets a request be admitted in its data group if only that one has its keys.
    private mutating func keepGroup(of id: UInt64) { sequences[id]!.keepsGroup = groupsKeepKeysApart }

    /// Gives a request that waits for the store the pages of the prefix that the cache has, but no window pages: it
    /// computes nothing, and window pages are enough for requests that run.
    ///
    /// - Returns: the number of its positions; `nil` if the request does not wait any more.
    package mutating func beginRestoring(_ id: UInt64) -> Int? {
        guard let state = sequences[id], state.phase == .restoring else { return nil }
        if state.pages.isEmpty {
            let known = identity(of: state, positions: state.reusablePositions)
            hold(cache.matchKnown(known.tokens, salt: salt(of: known), in: &pool), by: id)
            if sequences[id]!.computed > 0 { keepGroup(of: id) }
        }
        return sequences[id]!.computed
    }

    /// Gives a request pages for its positions before `end`, without preempting others.
    ///
    /// - Returns: false if the request does not wait any more, or if there are too few pages.
    package mutating func reserveRestored(_ id: UInt64, to end: Int) -> Bool {
        guard let state = sequences[id], state.phase == .restoring, end <= state.reusablePositions else { return false }
        let missing = max(0, pool.pages(holding: end) - state.pages.count)
        guard missing <= pool.freePages + cache.evictablePages else { return false }
        if pool.freePages < missing { cache.evict(missing - pool.freePages, from: &pool, windows: &windowPool) }
        guard let pages = pool.allocate(missing) else { return false }
        sequences[id]!.pages += pages
        return true
    }

    /// Returns the pages that a request holds while it waits for the store; `nil` if it does not wait any more. The
    /// store may write the entries of positions that are not restored.
    package func restoringPages(of id: UInt64) -> KVPages? {
        guard let state = sequences[id], state.phase == .restoring else { return nil }
        return state.keyPages
    }

    /// The keys of a request's positions before `end` are in its reserved pages: the cache keeps them from now on.
    package mutating func restored(_ id: UInt64, to end: Int) {
        guard let state = sequences[id], state.phase == .restoring, end <= state.pages.count * pool.pageSize,
            end <= state.reusablePositions
        else { return }
        sequences[id]!.computed = max(state.computed, end)
        sequences[id]!.planned = sequences[id]!.computed
        keepGroup(of: id)
        share(id)
    }

    /// Gives the prefix cache the window before a page border among a request's restored positions, if the cache lacks it
    /// and has a window page that no request uses.
    ///
    /// - Parameter write: writes the window's entries to the window page, and returns false if it could not.
    package mutating func restoreWindow(
        _ id: UInt64, before end: Int, _ write: (CacheStore.PageList) -> Bool
    ) {
        guard let state = sequences[id], state.phase == .restoring, end <= state.computed, end % pool.pageSize == 0
        else { return }
        let known = identity(of: state, positions: end)
        let border = end / pool.pageSize
        let pages = cache.knownPages(of: known.tokens, salt(of: known))
        guard border > 0, pages.count == border, cache.windowPage(of: pages[border - 1]) == nil else { return }
        if windowPool.freePages == 0 { cache.evictWindows(1, from: &windowPool) }
        guard let windowPage = allocateWindowPages(1) else { return }
        if write(CacheStore.PageList(windowPage, first: border - 1)) {
            cache.keepWindows(
                windowPage, from: border - 1, holding: known.tokens, salt: salt(of: known), in: &windowPool)
        }
        windowPool.release(windowPage)
    }

    /// Nothing more is restored for a request: it is queued. Requests that do not wait are ignored.
    package mutating func endRestoring(_ id: UInt64) {
        guard let state = sequences[id], state.phase == .restoring else { return }
        forgetKeys(of: id)
        enqueueLate(id)
    }

    /// Forgets everything that the store has restored, because the memory of the pages is replaced: requests that wait are
    /// queued, and the prefix cache gives up all pages.
    ///
    /// - Precondition: No request runs.
    package mutating func dropRestored() {
        for id in restoring.sorted() { endRestoring(id) }
        _ = flushCache()
    }

    /// Lets the request that waits for the store with the lowest precedence give up its pages.
    ///
    /// - Parameter state: a running request; only those of lower precedence are asked.
    /// - Returns: false if none has pages.
    mutating func stopRestoring(behind state: SequenceState) -> Bool {
        let candidates = restoring.compactMap { sequences[$0] }.filter {
            !$0.pages.isEmpty && state.precedence < $0.precedence
        }
        guard let last = candidates.max(by: { $0.precedence < $1.precedence }) else { return false }
        endRestoring(last.id)
        return true
    }

    /// Notes that the cache has computed positions of a request, if they are a block more than when that was last
    /// noted.
    mutating func noteStorable(_ state: SequenceState, _ known: IdentifiedPrefix) {
        guard let storedBlock else { return }
        let blocks = known.tokens.count / pool.pageSize * pool.pageSize / storedBlock
        guard blocks > state.notedBlocks else { return }
        sequences[state.id]?.notedBlocks = blocks
        var prefix = known
        prefix.tokens = known.tokens.prefix(blocks * storedBlock)
        storablePrefixes.append(prefix)
    }

    /// The violated invariants of requests that wait for the store.
    var restoringProblems: [String] {
        var problems: [String] = []
        for state in sequences.values where restoring.contains(state.id) != (state.phase == .restoring) {
            problems.append("\(state.id) is \(state.phase), and the list of those that wait for the store disagrees")
        }
        if !restoring.allSatisfy({ sequences[$0] != nil }) {
            problems.append("a request that does not exist waits for the store")
        }
        return problems
    }
}

/// The beginning of a sequence as the prefix cache identifies it: a token for each position, a salt, and the data group
/// that has its keys.
package struct IdentifiedPrefix: Sendable, Equatable {
    package var tokens: ArraySlice<Int32>
    package var salt: String?
    /// The data group whose ranks have the keys; 0 if all groups read the same. The keys do not depend on it.
    package var group: Int

    package init(tokens: ArraySlice<Int32>, salt: String? = nil, group: Int = 0) {
        self.tokens = tokens
        self.salt = salt
        self.group = group
    }
}

/// A prefix lookup is a request that waits until a prefix store has given what it has of the prompt.
package struct PrefixLookup: Sendable, Equatable {
    package var request: UInt64
    /// The positions that may be restored, in whole units (`Scheduler.restoredUnit`).
    package var prefix: IdentifiedPrefix

    package init(request: UInt64, prefix: IdentifiedPrefix) {
        self.request = request
        self.prefix = prefix
    }
}
