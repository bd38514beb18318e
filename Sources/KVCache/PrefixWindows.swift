/// The window pages that a prefix cache keeps: for some of its pages, the window page that holds the same tokens.
///
/// A request that goes on behind a known prefix sees the window before that border. So a prefix can be used up to a border
/// whose window is known, and such windows are what makes a prefix worth more than its pages: they are kept while there is
/// room for them, apart from the pages themselves.
struct PrefixWindows: Sendable {
    /// How many window pages before a border a row behind it sees; 0 where the model has no windows.
    let span: Int
    /// How many are kept.
    private(set) var count = 0
    /// The window page beside each page; -1 for none.
    private var windowPages: [Int32]
    /// When it was last known to be of use, by the cache's clock.
    private var stamps: [UInt64]
    /// Pages with a window page, those of no use for longest first; may have entries that no longer hold.
    private var order: [Entry] = []
    private var next = 0

    private struct Entry: Sendable {
        let page: Int32
        let stamp: UInt64
    }

    /// - Parameter window: tokens that a row sees of the sets that have a window, its own among them; 0 for none.
    init(of pool: PagePool, window: Int) {
        span = window == 0 ? 0 : pool.pages(holding: window - 1)
        windowPages = [Int32](repeating: -1, count: span == 0 ? 0 : pool.totalPages)
        stamps = [UInt64](repeating: 0, count: windowPages.count)
    }

    /// The window page beside a page.
    func windowPage(of page: Int32) -> Int32? {
        guard span > 0, windowPages[Int(page)] >= 0 else { return nil }
        return windowPages[Int(page)]
    }

    /// How many of some pages, the first of a request, it can use: up to the last border whose window is known.
    func usable(_ pages: [Int32]) -> Int {
        if span == 0 { return pages.count }
        var (usable, known) = (0, 0)
        for (index, page) in pages.enumerated() {
            known = windowPage(of: page) == nil ? 0 : known + 1
            if known >= min(span, index + 1) { usable = index + 1 }
        }
        return usable
    }

    /// Keeps a window page, which the tree owns from now on, beside a page that has none.
    mutating func keep(_ windowPage: Int32, beside page: Int32, at clock: UInt64) {
        precondition(windowPages[Int(page)] < 0, "page \(page) has a window page already")
        windowPages[Int(page)] = windowPage
        count += 1
        note(page, at: clock)
    }

    /// Forgets the window page beside a page, for the caller to give back.
    mutating func forget(_ page: Int32) -> Int32? {
        guard let windowPage = windowPage(of: page) else { return nil }
        windowPages[Int(page)] = -1
        count -= 1
        return windowPage
    }

    /// The pages whose window pages have been of no use for longest, as far as is known, and when they last were.
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

    /// Puts a page behind all others.
    mutating func note(_ page: Int32, at clock: UInt64) {
        // No two notes of a page are alike, so that one of them holds.
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

/// How requests find, leave and lose window pages.
extension PrefixCache {
    /// The window pages before the end of what was matched. The caller becomes an owner of each.
    ///
    /// - Parameter pages: what `match` has returned.
    package func matchWindows(of pages: [Int32], in windowPool: inout PagePool) -> [Int32] {
        pages.suffix(windows.span).map { page in
            guard let windowPage = windows.windowPage(of: page) else {
                preconditionFailure("page \(page) was matched without its window page")
            }
            windowPool.retain(windowPage)
            return windowPage
        }
    }

    /// Makes window pages known that a request holds, where its tokens are known and have none.
    ///
    /// - Parameters:
    ///   - tokens: what the request's first pages hold, in order.
    ///   - first: which of those pages the first window page stands beside.
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

    /// Gives back up to `count` window pages that no request uses, roughly those of the pages used longest ago. The pages
    /// stay known, but prefixes that end behind them can no longer be used.
    ///
    /// - Returns: how many window pages that were.
    @discardableResult package mutating func evictWindows(_ count: Int, from windowPool: inout PagePool) -> Int {
        var freed = 0
        // Those used since they were noted get a second turn; what is in use stays in any case.
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

    /// Whether the cache is an owner of a window page. Looks at all pages: for tests and audits.
    package func windowPages() -> Set<Int32> { Set(windows.pages.compactMap { windows.windowPage(of: $0) }) }

    /// What is wrong with the window pages, in words.
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
