import KVCache
import TestSupport
import Testing

struct PrefixCacheTests {
    /// A pool of pages of two tokens, and the prefix cache of its pages.
    private struct Rig {
        var pool: PagePool
        var cache: PrefixCache

        init(pages: Int = 16) {
            pool = PagePool(totalPages: pages, pageSize: 2)
            cache = PrefixCache(of: pool)
        }

        /// Computes `tokens` as a request would, and releases their pages to the cache.
        @discardableResult mutating func leave(_ tokens: [Int32], salt: String? = nil) -> [Int32] {
            let pages = pool.allocate(pool.pages(holding: tokens.count))!
            cache.release(pages, holding: tokens[...], salt: salt, in: &pool)
            return pages
        }

        var problems: [String] { pool.checkInvariants() + cache.checkInvariants(pool) }
    }

    @Test func `the longest prefix of whole pages is found`() {
        var rig = Rig()
        let pages = rig.leave([1, 2, 3, 4, 5, 6, 7])
        #expect(rig.cache.pages == 3)
        #expect(rig.pool.freePages == 13, "the page that is not full is free")
        #expect(rig.cache.find([1, 2, 3, 4, 5, 6, 7, 8, 9]) == Array(pages.prefix(3)))
        #expect(rig.cache.find([1, 2, 3, 4, 5]) == Array(pages.prefix(2)))
        #expect(rig.cache.find([1, 2, 3, 4, 0, 6]) == Array(pages.prefix(2)))
        #expect(rig.cache.find([1, 2, 0, 4, 5, 6]) == [pages[0]])
        #expect(rig.cache.find([1]) == [])
        #expect(rig.cache.find([0, 2, 3, 4]) == [])
        #expect(rig.problems == [])
    }

    @Test func `matched pages belong to the caller too, until it releases them`() {
        var rig = Rig()
        let pages = rig.leave([1, 2, 3, 4, 5, 6])
        #expect(rig.cache.evictablePages == 3)
        let mine = rig.cache.match([1, 2, 3, 4], in: &rig.pool)
        #expect(mine == Array(pages.prefix(2)))
        #expect(rig.cache.evictablePages == 1)
        #expect(rig.cache.flush(&rig.pool) == 1)
        #expect(rig.cache.find([1, 2, 3, 4, 5, 6]) == mine)
        #expect(rig.problems == [])
        rig.cache.release(mine, in: &rig.pool)
        #expect(rig.cache.evictablePages == 2)
        #expect(rig.cache.flush(&rig.pool) == 2)
        #expect(rig.pool.freePages == 16)
        #expect(rig.problems == [])
    }

    @Test func `prefixes with different salts share nothing`() {
        var rig = Rig()
        let plain = rig.leave([1, 2, 3, 4])
        #expect(rig.cache.find([1, 2, 3, 4], salt: "a") == [])
        let salted = rig.leave([1, 2, 3, 4], salt: "a")
        #expect(rig.cache.pages == 4)
        #expect(rig.cache.find([1, 2, 3, 4]) == plain)
        #expect(rig.cache.find([1, 2, 3, 4], salt: "a") == salted)
        #expect(rig.cache.find([1, 2, 3, 4], salt: "") == [])
        #expect(rig.problems == [])
    }

    @Test func `the first pages with some tokens stay, and duplicates are freed`() {
        var rig = Rig()
        let first = rig.leave([1, 2, 3, 4])
        let second = rig.leave([1, 2, 3, 4, 5, 6])
        #expect(rig.cache.find([1, 2, 3, 4, 5, 6]) == first + [second[2]])
        #expect(rig.pool.freePages == 13)
        #expect(rig.problems == [])
    }

    @Test func `a running request adds nothing after pages that are not its own`() {
        var rig = Rig()
        let running = rig.pool.allocate(3)!
        let first = rig.leave([1, 2, 3, 4])
        rig.cache.insert([1, 2, 3, 4, 5, 6], pages: running[...], in: &rig.pool)
        #expect(rig.cache.find([1, 2, 3, 4, 5, 6]) == first)
        #expect(rig.cache.evictablePages == 2)
        #expect(rig.problems == [])
        rig.cache.release(running, holding: [1, 2, 3, 4, 5, 6], in: &rig.pool)
        #expect(rig.cache.find([1, 2, 3, 4, 5, 6]) == first + [running[2]])
        #expect(rig.problems == [])
    }

    @Test func `a running request shares the pages it has computed`() {
        var rig = Rig()
        let running = rig.pool.allocate(3)!
        rig.cache.insert([1, 2], pages: running[...], in: &rig.pool)
        #expect(rig.cache.match([1, 2, 3, 4], in: &rig.pool) == [running[0]])
        rig.cache.insert([1, 2, 3, 4], pages: running[...], in: &rig.pool)
        #expect(rig.cache.find([1, 2, 3, 4]) == Array(running.prefix(2)))
        #expect(rig.cache.evictablePages == 0)
        #expect(rig.pool.owners(of: running[0]) == 3)
        #expect(rig.problems == [])
        rig.cache.release(running, in: &rig.pool)
        #expect(rig.cache.evictablePages == 1)
        rig.cache.release([running[0]], in: &rig.pool)
        #expect(rig.cache.evictablePages == 2)
        #expect(rig.problems == [])
    }

    @Test func `the least recently used leaf is evicted first, from its end`() {
        var rig = Rig()
        rig.leave([1, 1, 2, 2, 3, 3])
        rig.leave([1, 1, 4, 4, 5, 5])
        rig.leave([6, 6])
        rig.cache.release(rig.cache.match([1, 1, 2, 2], in: &rig.pool), in: &rig.pool)
        let paths: [[Int32]] = [[1, 1, 2, 2, 3, 3], [1, 1, 4, 4, 5, 5], [6, 6]]
        var found: [[Int]] = []
        while rig.cache.evict(1, from: &rig.pool) == 1 {
            found.append(paths.map { rig.cache.find($0[...]).count })
            #expect(rig.problems == [])
        }
        #expect(found == [[2, 3, 1], [2, 2, 1], [2, 1, 1], [2, 1, 0], [1, 1, 0], [0, 0, 0]])
        #expect(rig.pool.freePages == 16)
    }

    @Test func `adding a page that is in the tree already ends the program`() async {
        await #expect(processExitsWith: .failure) {
            var pool = PagePool(totalPages: 4, pageSize: 2)
            var cache = PrefixCache(of: pool)
            let pages = pool.allocate(1)!
            cache.insert([1, 2], pages: pages[...], in: &pool)
            cache.insert([3, 4], pages: pages[...], in: &pool)
        }
    }

    /// Fixed seeds, and others that differ in each run; a failure prints the seed.
    static let fixedSeeds: [UInt64] = [1, 2, 3, 4, 5]
    static let seeds = fixedSeeds + (1...10).map { _ in UInt64.random(in: 0 ... .max) }

    /// Runs 10^5 operations with fresh seeds.
    @Test(.timeLimit(.minutes(15)), arguments: seeds)
    func `random use agrees with a dictionary of prefixes`(seed: UInt64) throws {
        var run = RandomUse(seed: seed)
        for operation in 0..<10_000 {
            let name = run.act()
            try #require(run.problems == [], "seed \(seed), operation \(operation): \(name)")
        }
        run.end()
        #expect(run.problems == [], "seed \(seed)")
        #expect(run.pool.freePages == run.pool.totalPages, "seed \(seed)")
        // A random seed may draw a run in which little happens.
        guard Self.fixedSeeds.contains(seed) else { return }
        #expect(run.longestMatch >= 3 && run.evicted > 100 && run.duplicates > 10, "seed \(seed): too tame a run")
    }
}

/// Random requests on a small pool. Every operation is done by the cache and by a model of it: a dictionary from every
/// known prefix to its last page.
private struct RandomUse {
    private struct Prefix: Hashable {
        let salt: String?
        let tokens: [Int32]
    }

    private struct Entry {
        let page: Int32
        var lastUse: Int
    }

    private struct User {
        let salt: String?
        let tokens: [Int32]
        var pages: [Int32]
        var hits: Int
    }

    private(set) var pool: PagePool
    private(set) var longestMatch = 0
    private(set) var evicted = 0
    private(set) var duplicates = 0
    private var cache: PrefixCache
    private var known: [Prefix: Entry] = [:]
    private var users: [User] = []
    private var clock = 0
    private var random: SplitMix64

    init(seed: UInt64) {
        random = SplitMix64(seed: seed)
        pool = PagePool(totalPages: 20 + random.below(60), pageSize: 1 << random.below(4))
        cache = PrefixCache(of: pool)
    }

    /// Runs a random operation.
    ///
    /// - Returns: a description of the operation.
    mutating func act() -> String {
        switch random.below(40) {
        case 0..<14: begin()
        case 14..<22: insert()
        case 22..<36: finish()
        case 36..<39: evict(random.below(8))
        default: flush()
        }
    }

    mutating func end() {
        while !users.isEmpty { _ = finish() }
        _ = flush()
    }

    /// The violated invariants of the cache, and its differences from the model.
    var problems: [String] {
        var problems = pool.checkInvariants() + cache.checkInvariants(pool)
        var owners = [Int](repeating: 0, count: pool.totalPages)
        for page in users.flatMap(\.pages) { owners[Int(page)] += 1 }
        let unused = known.values.count { owners[Int($0.page)] == 0 }
        for entry in known.values { owners[Int(entry.page)] += 1 }
        let found = owners.indices.map { pool.owners(of: Int32($0)) }
        if found != owners { problems.append("owners \(found), expected \(owners)") }
        if cache.pages != known.count { problems.append("\(cache.pages) pages, expected \(known.count)") }
        if cache.evictablePages != unused { problems.append("\(cache.evictablePages) unused, expected \(unused)") }
        return problems
    }

    private mutating func begin() -> String {
        let user = randomUser()
        guard users.count < 12 else { return "nothing" }
        let expected = match(user)
        #expect(cache.find(user.tokens[...], salt: user.salt) == expected)
        #expect(cache.match(user.tokens[...], salt: user.salt, in: &pool) == expected)
        longestMatch = max(longestMatch, expected.count)
        users.append(user)
        users[users.count - 1].pages = expected
        users[users.count - 1].hits = expected.count
        let missing = pool.pages(holding: user.tokens.count) - expected.count
        if pool.freePages < missing { _ = evict(missing - pool.freePages) }
        if let pages = pool.allocate(missing) { users[users.count - 1].pages += pages }
        return "begin \(user.tokens) with \(expected.count) of \(missing + expected.count) pages"
    }

    private mutating func insert() -> String {
        guard !users.isEmpty else { return "nothing" }
        let user = users[random.below(users.count)]
        let computed = randomProgress(of: user)
        let tokens = user.tokens[..<computed]
        cache.insert(tokens, pages: user.pages[...], salt: user.salt, in: &pool)
        let path = prefixes(of: tokens, user.salt)
        if zip(path, user.pages).allSatisfy({ known[$0]?.page ?? $1 == $1 }) {
            add(path, user.pages)
        } else {
            duplicates += 1
        }
        return "insert \(tokens) in \(user.pages)"
    }

    private mutating func finish() -> String {
        guard !users.isEmpty else { return "nothing" }
        let user = users.remove(at: random.below(users.count))
        let computed = random.below(5) == 0 ? 0 : randomProgress(of: user)
        let tokens = user.tokens[..<computed]
        cache.release(user.pages, holding: tokens, salt: user.salt, in: &pool)
        add(prefixes(of: tokens, user.salt), user.pages)
        return "release \(user.pages) holding \(tokens)"
    }

    private mutating func evict(_ count: Int) -> String {
        let inUse = Set(users.flatMap(\.pages))
        let order = known.filter { !inUse.contains($0.value.page) }.sorted { one, other in
            one.value.lastUse == other.value.lastUse
                ? one.key.tokens.count > other.key.tokens.count : one.value.lastUse < other.value.lastUse
        }
        for (prefix, _) in order.prefix(count) { known[prefix] = nil }
        evicted += min(count, order.count)
        #expect(cache.evict(count, from: &pool) == min(count, order.count))
        return "evict \(count)"
    }

    private mutating func flush() -> String {
        let inUse = Set(users.flatMap(\.pages))
        let before = known.count
        known = known.filter { inUse.contains($0.value.page) }
        #expect(cache.flush(&pool) == before - known.count)
        return "flush"
    }

    // MARK: - The model

    private func prefixes(of tokens: ArraySlice<Int32>, _ salt: String?) -> [Prefix] {
        (0..<tokens.count / pool.pageSize).map {
            Prefix(salt: salt, tokens: Array(tokens.prefix(($0 + 1) * pool.pageSize)))
        }
    }

    private mutating func match(_ user: User) -> [Int32] {
        let path = prefixes(of: user.tokens[...], user.salt).prefix { known[$0] != nil }
        clock += 1
        for prefix in path { known[prefix]!.lastUse = clock }
        return path.map { known[$0]!.page }
    }

    private mutating func add(_ path: [Prefix], _ pages: [Int32]) {
        clock += 1
        for (prefix, page) in zip(path, pages) {
            known[prefix] = Entry(page: known[prefix]?.page ?? page, lastUse: clock)
        }
    }

    // MARK: - Random values

    private mutating func randomUser() -> User {
        let length = random.below(10 * pool.pageSize)
        // Two kinds of tokens with rare changes inside a page make equal prefixes frequent.
        var tokens: [Int32] = []
        while tokens.count < length {
            let token = Int32(random.below(2))
            let run = random.below(8) == 0 ? 1 + random.below(pool.pageSize) : pool.pageSize
            tokens += [Int32](repeating: token, count: min(run, length - tokens.count))
        }
        return User(salt: [nil, nil, "a", "b"][random.below(4)], tokens: tokens, pages: [], hits: 0)
    }

    /// Returns a number of a user's tokens that may be reported as computed.
    private mutating func randomProgress(of user: User) -> Int {
        let most = min(user.tokens.count, user.pages.count * pool.pageSize)
        let least = user.hits * pool.pageSize
        return random.below(2) == 0 ? most : least + random.below(most - least + 1)
    }
}

extension PrefixCache {
    /// Evicts up to `count` pages that no request uses, of a model without windows.
    @discardableResult fileprivate mutating func evict(_ count: Int, from pool: inout PagePool) -> Int {
        var none = PagePool(totalPages: 0, pageSize: pool.pageSize)
        return evict(count, from: &pool, windows: &none)
    }

    @discardableResult fileprivate mutating func flush(_ pool: inout PagePool) -> Int { evict(.max, from: &pool) }
}
