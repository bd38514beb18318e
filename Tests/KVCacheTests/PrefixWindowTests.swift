import KVCache
import Testing

/// Tests of a prefix cache with pages of two tokens, for models with windows.
struct PrefixWindowTests {
    private struct Rig {
        var pool = PagePool(totalPages: 16, pageSize: 2)
        var windowPool = PagePool(totalPages: 8, pageSize: 2)
        var cache: PrefixCache

        init(window: Int) { cache = PrefixCache(of: pool, window: window) }

        /// Computes `tokens` as a request would, and releases their pages to the cache, with window pages from page
        /// `first` on.
        mutating func leave(_ tokens: [Int32], windowsFrom first: Int) -> [Int32] {
            let pages = pool.allocate(pool.pages(holding: tokens.count))!
            cache.release(pages, holding: tokens[...], in: &pool)
            let windowPages = windowPool.allocate(pages.count - first)!
            cache.keepWindows(windowPages, from: first, holding: tokens[...], in: &windowPool)
            windowPool.release(windowPages)
            return pages
        }

        var problems: [String] {
            pool.checkInvariants() + windowPool.checkInvariants() + cache.checkInvariants(pool)
                + cache.checkWindows(windowPool)
        }
    }

    @Test func `a prefix is used up to the last border whose window is known`() {
        // A row after a border sees the three tokens before its own, which are in two pages.
        var rig = Rig(window: 4)
        let pages = rig.leave([1, 2, 3, 4, 5, 6, 7, 8], windowsFrom: 1)
        #expect(rig.windowPool.usedPages == 3)
        #expect(rig.cache.find([1, 2, 3, 4, 5, 6, 7, 8, 9]) == pages)
        #expect(rig.cache.find([1, 2, 3, 4, 5, 6]) == Array(pages.prefix(3)))
        #expect(rig.cache.find([1, 2, 3, 4]) == [], "the window of its border is not known, nor that of one before")
        #expect(rig.problems == [])
    }

    @Test func `a border near the beginning needs only the window pages there are`() {
        var rig = Rig(window: 6)
        let pages = rig.leave([1, 2, 3, 4], windowsFrom: 0)
        #expect(rig.cache.find([1, 2, 0, 0]) == [pages[0]])
        #expect(rig.cache.find([1, 2, 3, 4]) == pages)
    }

    @Test func `a window of one token needs none before a border`() {
        var rig = Rig(window: 1)
        let pages = rig.leave([1, 2, 3, 4], windowsFrom: 2)
        #expect(rig.cache.find([1, 2, 3, 4]) == pages)
        #expect(rig.cache.matchWindows(of: pages, in: &rig.windowPool) == [])
    }

    @Test func `a matched prefix has its window, which stays until it is released`() {
        var rig = Rig(window: 4)
        let pages = rig.leave([1, 2, 3, 4, 5, 6, 7, 8], windowsFrom: 0)
        let mine = rig.cache.match([1, 2, 3, 4, 5, 6], in: &rig.pool)
        #expect(mine == Array(pages.prefix(3)))
        let windowPages = rig.cache.matchWindows(of: mine, in: &rig.windowPool)
        #expect(windowPages.count == 2 && windowPages.allSatisfy { rig.windowPool.owners(of: $0) == 2 })
        #expect(rig.cache.evictWindows(8, from: &rig.windowPool) == 2, "those of the first and the last page")
        #expect(rig.cache.find([1, 2, 3, 4, 5, 6, 7, 8]) == mine, "no further than the window in use")
        rig.windowPool.release(windowPages)
        rig.cache.release(mine, in: &rig.pool)
        #expect(rig.cache.evictWindows(8, from: &rig.windowPool) == 2)
        #expect(rig.windowPool.freePages == 8 && rig.cache.pages == 4)
        #expect(rig.problems == [])
    }

    @Test func `window pages of the least recently used pages are evicted first`() {
        var rig = Rig(window: 2)
        let old = rig.leave([1, 2, 3, 4], windowsFrom: 0)
        let new = rig.leave([5, 6, 7, 8], windowsFrom: 0)
        // This makes the older prefix the most recently used one.
        let mine = rig.cache.match([1, 2, 3, 4], in: &rig.pool)
        rig.cache.release(mine, in: &rig.pool)
        #expect(rig.cache.evictWindows(2, from: &rig.windowPool) == 2)
        #expect(rig.cache.find([1, 2, 3, 4]) == old)
        #expect(rig.cache.find([5, 6, 7, 8]) == [] && new.count == 2)
        #expect(rig.problems == [])
    }

    @Test func `an evicted page frees its window page`() {
        var rig = Rig(window: 4)
        _ = rig.leave([1, 2, 3, 4, 5, 6], windowsFrom: 0)
        #expect(rig.cache.evict(1, from: &rig.pool, windows: &rig.windowPool) == 1)
        #expect(rig.windowPool.usedPages == 2)
        #expect(rig.cache.flush(&rig.pool, windows: &rig.windowPool) == 2)
        #expect(rig.windowPool.freePages == 8 && rig.pool.freePages == 16)
        #expect(rig.problems == [])
    }

    @Test func `computing known tokens again makes their window known`() {
        var rig = Rig(window: 4)
        let pages = rig.leave([1, 2, 3, 4], windowsFrom: 2)
        #expect(rig.cache.find([1, 2, 3, 4]) == [])
        _ = rig.leave([1, 2, 3, 4], windowsFrom: 0)
        #expect(rig.cache.find([1, 2, 3, 4]) == pages, "the first pages stay")
        #expect(rig.problems == [])
    }
}
