/// The window pages that a prefix cache keeps: for some of its pages, the window page that covers the same tokens.
///
/// A request that continues after a cached prefix sees the window before that page border, so a prefix can be used only
/// up to a border whose window pages are known. Window pages are kept while there is space for them, independently of
/// the pages themselves.
struct PrefixWindows: Sendable {
    /// The number of window pages before a border that a row after the border sees; 0 if the model has no windows.
    let span: Int
    /// The number of window pages that are kept.
    private(set) var count = 0
    /// The window page that is kept for each page; -1 if there is none.
    private var windowPages: [Int32]
    /// The value of the cache's clock when each page's window page was last known to be used.
    private var stamps: [UInt64]
    /// The pages that have a window page, least recently used first. Entries whose stamp is outdated are ignored.
    private var order: [Entry] = []
    private var next = 0

    private struct Entry: Sendable {
        let page: Int32
        let stamp: UInt64
    }

    /// Creates an empty collection.
    ///
    /// - Parameter window: the number of tokens that a row sees of the key sets with a window, its own included; 0 if
    ///   there are none.
    init(of pool: PagePool, window: Int) {
        span = window == 0 ? 0 : pool.pages(holding: window - 1)
        windowPages = [Int32](repeating: -1, count: span == 0 ? 0 : pool.totalPages)
        stamps = [UInt64](repeating: 0, count: windowPages.count)
    }

    /// Returns the window page that is kept for a page, if any.
    func windowPage(of page: Int32) -> Int32? {
        guard span > 0, windowPages[Int(page)] >= 0 else { return nil }
        return windowPages[Int(page)]
    }

    /// Returns how many of a request's first pages it can use: those up to the last border whose window pages are
    /// known.
    func usable(_ pages: [Int32]) -> Int {
        if span == 0 { return pages.count }
        var (usable, known) = (0, 0)
        for (index, page) in pages.enumerated() {
            known = windowPage(of: page) == nil ? 0 : known + 1
            if known >= min(span, index + 1) { usable = index + 1 }
        }
        return usable
    }

    /// Keeps a window page for a page that has none. The tree is an owner of the window page from now on.
    mutating func keep(_ windowPage: Int32, beside page: Int32, at clock: UInt64) {
        precondition(windowPages[Int(page)] < 0, "page \(page) has a window page already")
        windowPages[Int(page)] = windowPage
        count += 1
        note(page, at: clock)
    }

    /// Removes and returns the window page of a page; the caller releases it.
    mutating func forget(_ page: Int32) -> Int32? {
        guard let windowPage = windowPage(of: page) else { return nil }
        windowPages[Int(page)] = -1
        count -= 1
        return windowPage
    }

    /// Removes the first page from the order of use and returns it with its stamp. Its window page stays until
    /// `forget`.
    mutating func takeOldest() -> (page: Int32, stamp: UInt64)? {
        while next < order.count {
            let entry = order[next]
            next += 1
            if next > 64, next * 2 > order.count {
                order.removeFirst(next)
                next = 0
            }
            if windowPages[Int(entry.page)] >= 0, stamps[Int(entry.page)] == entry.stamp {
                return (entry.page, entry.stamp)
            }
        }
        return nil
    }

    /// Moves a page to the end of the order of use.
    mutating func note(_ page: Int32, at clock: UInt64) {
        // Stamps of a page must differ, because only the entry with the latest one is valid.
        stamps[Int(page)] = max(clock, stamps[Int(page)] + 1)
        order.append(Entry(page: page, stamp: stamps[Int(page)]))
        if order.count - next > 2 * windowPages.count + 64 {
            order = order[next...].filter { windowPages[Int($0.page)] >= 0 && stamps[Int($0.page)] == $0.stamp }
            next = 0
        }
    }

    /// The pages that have a window page.
    var pages: [Int32] { windowPages.indices.filter { windowPages[$0] >= 0 }.map { Int32($0) } }
}

/// The prefix cache gives window pages to requests, takes them from requests, and evicts them.
extension PrefixCache {
    /// Returns the window pages before the end of a matched prefix, and makes the caller an owner of each.
    ///
    /// - Parameter pages: the pages that `match` returned.
    package func matchWindows(of pages: [Int32], in windowPool: inout PagePool) -> [Int32] {
        pages.suffix(windows.span).map { page in
            guard let windowPage = windows.windowPage(of: page) else {
                preconditionFailure("page \(page) was matched without its window page")
            }
            windowPool.retain(windowPage)
            return windowPage
        }
    }

    /// Returns the window page that is kept for a page of the tree, if any.
    package func windowPage(of page: Int32) -> Int32? { windows.windowPage(of: page) }

    /// Keeps a request's window pages for those cached pages that have the same tokens and no window page yet.
    ///
    /// - Parameters:
    ///   - windowPages: consecutive window pages of the request.
    ///   - first: the index among the request's pages of the one that covers the same tokens as the first window page.
    ///   - tokens: the tokens of the request's first pages, in order.
    package mutating func keepWindows(
        _ windowPages: [Int32], from first: Int, holding tokens: ArraySlice<Int32>, salt: String? = nil,
        in windowPool: inout PagePool
    ) {
        guard windows.span > 0, !windowPages.isEmpty else { return }
        let known = knownPages(of: tokens, salt)
        for (index, windowPage) in windowPages.enumerated() where first + index < known.count {
            let page = known[first + index]
            if windows.windowPage(of: page) != nil { continue }
            windowPool.retain(windowPage)
            windows.keep(windowPage, beside: page, at: clock)
        }
    }

    /// Evicts up to `count` window pages that no request uses, approximately in the order in which their pages were
    /// last used. The pages stay cached, but prefixes that end after them can no longer be used.
    ///
    /// - Returns: the number of window pages evicted.
    @discardableResult package mutating func evictWindows(_ count: Int, from windowPool: inout PagePool) -> Int {
        var freed = 0
        // Pages that were used since they were noted are moved to the end once; window pages in use always stay.
        for _ in 0..<2 {
            for _ in 0..<windows.count where freed < count {
                guard let (page, stamp) = windows.takeOldest(), let windowPage = windows.windowPage(of: page) else {
                    break
                }
                let lastUse = lastUse(of: page)
                if windowPool.owners(of: windowPage) > 1 || lastUse > stamp {
                    windows.note(page, at: lastUse)
                    continue
                }
                _ = windows.forget(page)
                windowPool.release(windowPage)
                freed += 1
            }
        }
        return freed
    }

    /// Returns all window pages of which the cache is an owner. It looks at all pages, so it is for tests and invariant
    /// checks.
    package func windowPages() -> Set<Int32> { Set(windows.pages.compactMap { windows.windowPage(of: $0) }) }

    /// Returns the violated invariants of the window pages in words.
    package func checkWindows(_ windowPool: PagePool) -> [String] {
        let kept = windows.pages
        var problems = kept.filter { !holds($0) }.map { "page \($0) has a window page, but is not in the tree" }
        for page in kept where windowPool.owners(of: windows.windowPage(of: page)!) == 0 {
            problems.append("the window page of page \(page) is free")
        }
        if kept.count != windows.count { problems.append("\(kept.count) window pages are kept, not \(windows.count)") }
        if windowPages().count != kept.count { problems.append("a window page is kept twice") }
        return problems
    }
}
