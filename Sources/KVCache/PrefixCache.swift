/// The prefix cache: pages whose tokens are known, so that a request whose prompt begins with the same tokens does not
/// compute them again.
///
/// It has a radix tree for each salt: a node is a run of whole pages with their tokens, and a path from the root is a
/// prefix. Tokens are always compared; hashes only choose among a node's children. The tree is one owner of every page
/// that it holds (see `PagePool`), and each request that uses a page is another, so a page in use is never freed. The
/// cache is a value type without threads or a model; its clock is a counter.
///
/// A request that holds a page of the tree also holds all earlier pages on the path. The pages without a user are
/// therefore always whole branches, and all of them can be evicted, leaf by leaf, least recently used first.
///
/// For a lookup of n tokens, every operation makes O(n) comparisons and splits at most one node, which copies that
/// node. Evicting k pages takes time O(k + l · log L) if l of L leaves are removed. No operation iterates over all
/// nodes.
package struct PrefixCache: Sendable {
    /// The number of pages that the tree holds.
    package private(set) var pages = 0
    /// The number of pages in the tree that no request uses; `evict` can free these.
    package private(set) var evictablePages = 0

    private let pageSize: Int
    private var nodes: [Node] = []
    /// The indices of `nodes` that are not in use.
    private var spare: [Int] = []
    private var roots: [String?: Int] = [:]
    /// The index of the node that holds each page; -1 if no node holds it.
    private var nodeOfPage: [Int]
    /// The nodes that have no children and no users.
    private var leaves = LeafOrder()
    /// The number of lookups and insertions so far.
    private(set) var clock: UInt64 = 0
    var windows: PrefixWindows

    /// A run of pages that were added together, are used together, and were last used together.
    private struct Node: Sendable {
        /// The index of the parent; -1 for a root, which has neither tokens nor pages.
        var parent: Int
        var tokens: [Int32] = []
        var pages: [Int32] = []
        /// The index of each child, by the tokens of the child's first page.
        var children: [ArraySlice<Int32>: Int] = [:]
        /// The number of requests that hold the node's pages.
        var users = 0
        var lastUse: UInt64 = 0
        /// The salt, for a root.
        var salt: String?
    }

    /// Creates an empty cache.
    ///
    /// - Parameters:
    ///   - pool: the pool of the pages that the cache may hold.
    ///   - window: the number of tokens that a row sees of the key sets with a window, its own included; 0 if there are
    ///     none.
    package init(of pool: PagePool, window: Int = 0) {
        windows = PrefixWindows(of: pool, window: window)
        pageSize = pool.pageSize
        nodeOfPage = [Int](repeating: -1, count: pool.totalPages)
    }

    /// Returns true if the tree holds a page.
    package func holds(_ page: Int32) -> Bool { nodeOfPage[Int(page)] >= 0 }

    /// Returns the pages of the longest known prefix of `tokens`: whole pages only, up to the last page border whose
    /// window is known. It changes nothing, not even the order of eviction.
    package func find(_ tokens: ArraySlice<Int32>, salt: String? = nil) -> [Int32] {
        let pages = knownPages(of: tokens, salt)
        return Array(pages.prefix(windows.usable(pages)))
    }

    /// Returns the pages of the longest known prefix of `tokens`, whole pages only, whether its window is known or not.
    package func knownPages(of tokens: ArraySlice<Int32>, _ salt: String?) -> [Int32] {
        let path = path(of: tokens, salt)
        let all = path.nodes.flatMap { nodes[$0].pages }
        return Array(all.prefix(path.pages))
    }

    /// Returns the value of `clock` when a page of the tree was last used.
    func lastUse(of page: Int32) -> UInt64 { nodes[nodeOfPage[Int(page)]].lastUse }

    /// Returns the pages of the longest known prefix of `tokens`, as `find` does, and makes the caller an owner of
    /// each. The caller must not write them, and gives them back with `release`.
    package mutating func match(_ tokens: ArraySlice<Int32>, salt: String? = nil, in pool: inout PagePool) -> [Int32] {
        // A prefix that ends at an earlier border has another path.
        let usable = windows.span == 0 ? tokens : tokens.prefix(find(tokens, salt: salt).count * pageSize)
        return matchKnown(usable, salt: salt, in: &pool)
    }

    /// Returns the pages of the longest known prefix of `tokens`, whether its window is known or not, and makes the
    /// caller an owner of each, as `match` does. The caller cannot compute rows after it without its window.
    package mutating func matchKnown(
        _ tokens: ArraySlice<Int32>, salt: String? = nil, in pool: inout PagePool
    ) -> [Int32] {
        let path = use(path(of: tokens, salt))
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

    /// Adds the pages of a request that keeps using them. They hold `tokens`, in order, and the request no longer
    /// writes them. A last page that is not full is left out.
    ///
    /// If the tree already has other pages for the same tokens, those stay and nothing is added: the request does not
    /// own them, and pages that it added after them would be in use while they are not.
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

    /// Removes the caller's ownership of each of `pages`, which are all pages it holds, and adds those pages whose
    /// tokens are given to the tree. If the tree already has other pages for the same tokens, those stay.
    ///
    /// - Parameter tokens: the tokens that the first of the pages hold, in order; empty if the pages must not be
    ///   reused.
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

    /// Evicts up to `count` pages that no request uses, which frees them: the least recently used leaf from its end,
    /// then the next leaf. Their window pages are freed as well.
    ///
    /// - Returns: the number of pages evicted.
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

    /// Evicts every page that no request uses, and returns the number of pages evicted.
    @discardableResult package mutating func flush(_ pool: inout PagePool, windows windowPool: inout PagePool) -> Int {
        evict(evictablePages, from: &pool, windows: &windowPool)
    }
}

// MARK: - The tree

extension PrefixCache {
    /// The path on which the tree holds a prefix.
    private struct Path {
        /// The indices of the nodes from the root's child on; the prefix may end inside the last one.
        var nodes: [Int] = []
        /// The number of pages of the prefix in all nodes.
        var pages = 0
        /// The number of pages of the prefix in the last node.
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

    /// Returns the number of whole pages in which two runs of tokens begin alike.
    private func samePages(_ run: [Int32], _ tokens: ArraySlice<Int32>) -> Int {
        let most = min(run.count, tokens.count)
        var count = 0
        while count < most, run[count] == tokens[tokens.startIndex + count] { count += 1 }
        return count / pageSize
    }

    private func wholePages(of tokens: ArraySlice<Int32>) -> ArraySlice<Int32> {
        tokens.prefix(tokens.count & ~(pageSize - 1))
    }

    /// Splits the path's last node at the end of the path, and records that all nodes of the path are used now.
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

    /// Splits a node in two. The pages after the cut keep the node's index, so that its children need no change.
    ///
    /// - Returns: the index of the new node, which has the first `count` pages.
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

    /// Adds a node with those of `tokens` that follow the end of their path, in pages that the caller owns.
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

    /// Removes a node that has no children and no users.
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

    /// Returns the key by which a node is found among its parent's children. It is a copy, so that the key does not
    /// keep the node's tokens alive.
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
    /// Returns the violated invariants of the tree in words; the list is empty if every page is where the accounting
    /// says it is. It iterates over all nodes, so it is for tests and `--check-invariants`.
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
