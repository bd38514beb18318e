/// Pages whose tokens are known, so that a request whose prompt begins with the same tokens need not compute them again.
///
/// A radix tree for each salt: a node is a run of whole pages with their tokens, and a path from the root is a prefix.
/// Tokens are compared, never hashes alone; hashes only choose among a node's children. The tree is one owner of every
/// page it holds (see `PagePool`), and each request that uses a page is another, so a page in use is never given away.
/// A value type without threads, clock or model; recency is a counter.
///
/// A request that holds a page of the tree holds all pages before it on the path too. So the pages nobody else owns are
/// always whole branches, and all of them can be given back, leaf by leaf, least recently used first.
///
/// With n tokens looked up, all operations cost O(n) comparisons and at most one split of a node, which copies that
/// node; giving back k pages costs O(k + l · log L) for l leaves that go out of L. Nothing looks at all nodes.
package struct PrefixCache: Sendable {
    /// Pages the tree holds.
    package private(set) var pages = 0
    /// Those of them nobody else owns: what `evict` can give back.
    package private(set) var evictablePages = 0

    private let pageSize: Int
    private var nodes: [Node] = []
    /// Indices of `nodes` that are not in use.
    private var spare: [Int] = []
    private var roots: [String?: Int] = [:]
    /// The node that holds a page; -1 for none.
    private var nodeOfPage: [Int]
    /// The nodes without children that nobody uses.
    private var leaves = LeafOrder()
    /// Lookups and insertions so far.
    private(set) var clock: UInt64 = 0
    var windows: PrefixWindows

    /// All pages of a node were added together, are used together, and were last used together.
    private struct Node: Sendable {
        /// -1 for a root, which has neither tokens nor pages.
        var parent: Int
        var tokens: [Int32] = []
        var pages: [Int32] = []
        /// By the tokens of the child's first page.
        var children: [ArraySlice<Int32>: Int] = [:]
        /// Requests that hold its pages.
        var users = 0
        var lastUse: UInt64 = 0
        /// Of a root: where to find it among the roots.
        var salt: String?
    }

    /// - Parameters:
    ///   - pool: the pages there are.
    ///   - window: tokens that a row sees of the key sets that have a window, its own among them; 0 for none.
    package init(of pool: PagePool, window: Int = 0) {
        windows = PrefixWindows(of: pool, window: window)
        pageSize = pool.pageSize
        nodeOfPage = [Int](repeating: -1, count: pool.totalPages)
    }

    /// Whether a page's tokens are known.
    package func holds(_ page: Int32) -> Bool { nodeOfPage[Int(page)] >= 0 }

    /// The pages that hold the longest known prefix of `tokens`, whole pages only, as far as its windows are known. Nothing
    /// changes.
    package func find(_ tokens: ArraySlice<Int32>, salt: String? = nil) -> [Int32] {
        let pages = knownPages(of: tokens, salt)
        return Array(pages.prefix(windows.usable(pages)))
    }

    /// The pages that hold the longest known prefix of `tokens`, whole pages only, whether its windows are known or not.
    func knownPages(of tokens: ArraySlice<Int32>, _ salt: String?) -> [Int32] {
        let path = path(of: tokens, salt)
        let all = path.nodes.flatMap { nodes[$0].pages }
        return Array(all.prefix(path.pages))
    }

    /// When the tokens of a page in the tree were last used.
    func lastUse(of page: Int32) -> UInt64 { nodes[nodeOfPage[Int(page)]].lastUse }

    /// The pages that hold the longest known prefix of `tokens`, as `find` finds it. The caller becomes an owner of each
    /// and gives them back by `release`; until then it must not write them.
    package mutating func match(_ tokens: ArraySlice<Int32>, salt: String? = nil, in pool: inout PagePool) -> [Int32] {
        // A prefix that ends earlier has a path of its own.
        let usable = windows.span == 0 ? tokens : tokens.prefix(find(tokens, salt: salt).count * pageSize)
        let path = use(path(of: usable, salt))
        var found: [Int32] = []
        for node in path.nodes {
            if nodes[node].users == 0 {
                evictablePages -= nodes[node].pages.count
                leaves.remove(node)
            }
            nodes[node].users += 1
            for page in nodes[node].pages { pool.retain(page) }
            found += nodes[node].pages
        }
        return found
    }

    /// Makes the pages of a request known that goes on using them. Its pages hold `tokens`, in order, and are written
    /// no more; a last page that is not full is left out.
    ///
    /// Where other pages are known for the same tokens, those stay and nothing is added: the request does not own them,
    /// and what it added behind them would be in use where they are not.
    package mutating func insert(
        _ tokens: ArraySlice<Int32>, pages: ArraySlice<Int32>, salt: String? = nil, in pool: inout PagePool
    ) {
        let path = path(of: wholePages(of: tokens), salt)
        var next = pages.startIndex
        for node in path.nodes {
            guard nodes[node].pages[0] == pages[next] else { return }
            next += nodes[node].pages.count
        }
        add(tokens, pages, after: path, salt, in: &pool)
    }

    /// Takes the caller's ownership away from each of `pages`, which are all that it holds. What `tokens` they hold is
    /// known from now on; where other pages are known for the same tokens, those stay.
    ///
    /// - Parameter tokens: what the first of the pages hold, in order; empty where that is not to be known.
    package mutating func release(
        _ pages: [Int32], holding tokens: ArraySlice<Int32> = [], salt: String? = nil, in pool: inout PagePool
    ) {
        add(tokens, pages[...], after: path(of: wholePages(of: tokens), salt), salt, in: &pool)
        for page in pages {
            pool.release(page)
            let node = nodeOfPage[Int(page)]
            guard node >= 0, nodes[node].pages[0] == page else { continue }
            nodes[node].users -= 1
            guard nodes[node].users == 0 else { continue }
            evictablePages += nodes[node].pages.count
            if nodes[node].children.isEmpty { leaves.insert(node, lastUse: nodes[node].lastUse) }
        }
    }

    /// Forgets up to `count` pages nobody else owns, so that they are free: the least recently used leaf from its end,
    /// then the next. Their window pages are given back, too.
    ///
    /// - Returns: how many pages that were.
    @discardableResult package mutating func evict(
        _ count: Int, from pool: inout PagePool, windows windowPool: inout PagePool
    ) -> Int {
        var left = count
        while left > 0, let leaf = leaves.first {
            let taken = min(left, nodes[leaf].pages.count)
            for page in nodes[leaf].pages.suffix(taken) {
                nodeOfPage[Int(page)] = -1
                pool.release(page)
                if let windowPage = windows.forget(page) { windowPool.release(windowPage) }
            }
            pages -= taken
            evictablePages -= taken
            left -= taken
            if taken == nodes[leaf].pages.count {
                remove(leaf)
            } else {
                nodes[leaf].pages.removeLast(taken)
                nodes[leaf].tokens.removeLast(taken * pageSize)
            }
        }
        return count - left
    }

    /// Forgets every page nobody else owns. Returns how many that were.
    @discardableResult package mutating func flush(_ pool: inout PagePool, windows windowPool: inout PagePool) -> Int {
        evict(evictablePages, from: &pool, windows: &windowPool)
    }

    /// The same where there are no windows.
    @discardableResult package mutating func evict(_ count: Int, from pool: inout PagePool) -> Int {
        var none = PagePool(totalPages: 0, pageSize: pageSize)
        return evict(count, from: &pool, windows: &none)
    }

    /// The same where there are no windows.
    @discardableResult package mutating func flush(_ pool: inout PagePool) -> Int { evict(evictablePages, from: &pool) }
}

// MARK: - The tree

extension PrefixCache {
    /// Where a prefix is found.
    private struct Path {
        /// From the root's child on; the last one's pages perhaps only in part.
        var nodes: [Int] = []
        /// Pages found, all nodes together.
        var pages = 0
        /// Those of the last node.
        var pagesOfLast = 0
    }

    private func path(of tokens: ArraySlice<Int32>, _ salt: String?) -> Path {
        var path = Path()
        guard var node = roots[salt] else { return path }
        var rest = tokens
        while rest.count >= pageSize, let child = nodes[node].children[rest.prefix(pageSize)] {
            let same = samePages(nodes[child].tokens, rest)
            path.nodes.append(child)
            path.pages += same
            path.pagesOfLast = same
            guard same == nodes[child].pages.count else { break }
            rest = rest.dropFirst(same * pageSize)
            node = child
        }
        return path
    }

    /// How many pages two runs of tokens begin with alike.
    private func samePages(_ run: [Int32], _ tokens: ArraySlice<Int32>) -> Int {
        let most = min(run.count, tokens.count)
        var count = 0
        while count < most, run[count] == tokens[tokens.startIndex + count] { count += 1 }
        return count / pageSize
    }

    private func wholePages(of tokens: ArraySlice<Int32>) -> ArraySlice<Int32> {
        tokens.prefix(tokens.count & ~(pageSize - 1))
    }

    /// Splits the path's last node where the path ends, and notes the use of all its nodes.
    private mutating func use(_ path: Path) -> Path {
        guard let last = path.nodes.last else { return path }
        var path = path
        if path.pagesOfLast < nodes[last].pages.count {
            path.nodes[path.nodes.count - 1] = split(last, after: path.pagesOfLast)
        }
        clock += 1
        for node in path.nodes { nodes[node].lastUse = clock }
        if let last = path.nodes.last, leaves.contains(last) {
            leaves.remove(last)
            leaves.insert(last, lastUse: clock)
        }
        return path
    }

    /// Divides a node in two. Its number goes with the pages behind the cut, so that no child has to be told.
    ///
    /// - Returns: the node of the first `count` pages.
    private mutating func split(_ node: Int, after count: Int) -> Int {
        var upper = Node(parent: nodes[node].parent)
        upper.tokens = Array(nodes[node].tokens.prefix(count * pageSize))
        upper.pages = Array(nodes[node].pages.prefix(count))
        upper.users = nodes[node].users
        upper.lastUse = nodes[node].lastUse
        nodes[node].tokens.removeFirst(count * pageSize)
        nodes[node].pages.removeFirst(count)
        upper.children = [key(of: nodes[node]): node]
        let index = place(upper)
        nodes[node].parent = index
        nodes[nodes[index].parent].children[key(of: nodes[index])] = index
        for page in nodes[index].pages { nodeOfPage[Int(page)] = index }
        return index
    }

    /// Adds what `tokens` have behind the end of their path as a node, whose pages the caller holds.
    private mutating func add(
        _ tokens: ArraySlice<Int32>, _ owned: ArraySlice<Int32>, after path: Path, _ salt: String?,
        in pool: inout PagePool
    ) {
        let whole = tokens.count / pageSize
        precondition(whole <= owned.count, "\(tokens.count) tokens are not in \(owned.count) pages")
        let path = use(path)
        guard whole > path.pages else { return }
        let parent = path.nodes.last ?? root(salt)
        var node = Node(parent: parent)
        node.tokens = Array(tokens.prefix(whole * pageSize).dropFirst(path.pages * pageSize))
        node.pages = Array(owned.prefix(whole).dropFirst(path.pages))
        node.users = 1
        clock += path.nodes.isEmpty ? 1 : 0
        node.lastUse = clock
        let index = place(node)
        nodes[parent].children[key(of: node)] = index
        leaves.remove(parent)
        pages += node.pages.count
        for page in node.pages {
            precondition(nodeOfPage[Int(page)] < 0, "page \(page) is in the tree already")
            nodeOfPage[Int(page)] = index
            pool.retain(page)
        }
    }

    /// Takes out a node without children that nobody uses.
    private mutating func remove(_ leaf: Int) {
        leaves.remove(leaf)
        let parent = nodes[leaf].parent
        nodes[parent].children[key(of: nodes[leaf])] = nil
        forget(leaf)
        guard nodes[parent].children.isEmpty else { return }
        if nodes[parent].parent < 0 {
            roots[nodes[parent].salt] = nil
            forget(parent)
        } else if nodes[parent].users == 0 {
            leaves.insert(parent, lastUse: nodes[parent].lastUse)
        }
    }

    private mutating func root(_ salt: String?) -> Int {
        if let root = roots[salt] { return root }
        var node = Node(parent: -1)
        node.salt = salt
        let root = place(node)
        roots[salt] = root
        return root
    }

    /// What a node is found by among its parent's children: a copy, so that the node's tokens are not shared.
    private func key(of node: Node) -> ArraySlice<Int32> { Array(node.tokens.prefix(pageSize))[...] }

    private mutating func place(_ node: Node) -> Int {
        guard let index = spare.popLast() else {
            nodes.append(node)
            return nodes.count - 1
        }
        nodes[index] = node
        return index
    }

    private mutating func forget(_ index: Int) {
        nodes[index] = Node(parent: -1)
        spare.append(index)
    }
}

extension PrefixCache {
    /// What is wrong with the tree, in words; empty when every page is where the books say it is. For tests.
    package func checkInvariants(_ pool: PagePool) -> [String] {
        var problems: [String] = []
        var reached: [Int] = []
        var (held, evictable, leafCount) = (0, 0, 0)
        for (salt, root) in roots {
            if nodes[root].children.isEmpty { problems.append("the root of \(salt ?? "no salt") is empty") }
            reached += nodes[root].children.values
        }
        while let index = reached.popLast() {
            let node = nodes[index]
            held += node.pages.count
            evictable += node.users == 0 ? node.pages.count : 0
            leafCount += node.users == 0 && node.children.isEmpty ? 1 : 0
            problems += nodeProblems(index, pool)
            reached += node.children.values
        }
        if held != pages || nodeOfPage.count(where: { $0 >= 0 }) != pages {
            problems.append("\(held) pages are in the tree, \(pages) are said to be")
        }
        if evictable != evictablePages { problems.append("\(evictable) pages are unused, not \(evictablePages)") }
        if leafCount != leaves.count { problems.append("\(leafCount) leaves are unused, \(leaves.count) are listed") }
        return problems
    }

    private func nodeProblems(_ index: Int, _ pool: PagePool) -> [String] {
        let node = nodes[index]
        let parent = nodes[node.parent]
        var problems: [String] = []
        if node.pages.isEmpty || node.tokens.count != node.pages.count * pageSize {
            problems.append("node \(index) has \(node.tokens.count) tokens in \(node.pages.count) pages")
        }
        if parent.children[node.tokens.prefix(pageSize)] != index { problems.append("node \(index) is not found") }
        for page in node.pages {
            if nodeOfPage[Int(page)] != index { problems.append("page \(page) is not known to be in node \(index)") }
            if pool.owners(of: page) != node.users + 1 {
                problems.append("page \(page) has \(pool.owners(of: page)) owners and \(node.users) users")
            }
        }
        if parent.parent >= 0 && (parent.users < node.users || parent.lastUse < node.lastUse) {
            problems.append("node \(index) is used more, or later, than what is before it")
        }
        if leaves.contains(index) != (node.users == 0 && node.children.isEmpty) {
            problems.append("leaf \(index) is not listed as one")
        }
        return problems
    }
}
