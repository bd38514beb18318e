/// Represents a grammar as a recursive transition network: states with moves over symbols and calls of rules.
///
/// Symbols 0 to 255 are bytes; 256 and following are control tokens. Once prepared, no rule calls itself before it has
/// read something, and from every reachable state the end can be reached.
struct TransitionNetwork: Sendable {
    struct State: Sendable {
        var empty: [Int32] = []
        var moves: [Move] = []
        var calls: [Call] = []
        var accepts = false

        /// True if only the end of the rule is possible here.
        var isBareEnd: Bool { accepts && empty.isEmpty && moves.isEmpty && calls.isEmpty }
    }

    struct Move: Sendable {
        var low, high: UInt16
        var target: Int32
    }

    struct Call: Sendable, Hashable {
        var rule, target: Int32
    }

    /// Lists what is possible at the beginning of a rule; rules called there are included only as calls.
    struct Entry: Sendable {
        var states: [Int32] = []
        var calls: [Call] = []
    }

    var states: [State] = []
    /// The first state of each rule.
    var starts: [Int32] = []
    private(set) var entries: [Entry] = []
    /// Each rule's index in an order in which rules precede those they may call before reading.
    private(set) var callOrder: [Int32] = []
    private(set) var rootIsNullable = false

    static let maxStates = 400_000

    mutating func addState() throws(GrammarError) -> Int32 {
        guard states.count < Self.maxStates else {
            throw GrammarError(
                .tooLarge, "the grammar needs more than \(Self.maxStates) states; lower its repetition counts")
        }
        try GrammarWork.check(states.count, every: 1024)
        states.append(State())
        return Int32(states.count - 1)
    }

    /// Prepares the network for matching; see above.
    ///
    /// - Throws: if the root derives no text.
    mutating func prepare() throws(GrammarError) {
        try prune()
        guard !states[Int(starts[RuleSet.root])].isDead else {
            throw GrammarError(.invalid, "nothing can match: every way through the grammar ends in a contradiction")
        }
        let nullable = try completable { _ in false }
        for state in states.indices {
            for call in states[state].calls where nullable[Int(starts[Int(call.rule)])] {
                states[state].empty.append(call.target)
            }
        }
        rootIsNullable = nullable[Int(starts[RuleSet.root])]
        try removeLeftRecursion()
        try prune()
        for (rule, start) in starts.enumerated() {
            try GrammarWork.check(rule, every: 64)
            entries.append(entry(from: start))
        }
        guard let order = topologicalOrder() else {
            throw GrammarError(.unsupported, "rules that call each other before they read anything")
        }
        callOrder = order
    }

    /// Returns the states that are reachable from `start` without reading, in the same rule.
    func closure(of start: Int32) -> [Int32] {
        var (seen, pending) = (Set([start]), [start])
        while let state = pending.popLast() {
            for next in states[Int(state)].empty where seen.insert(next).inserted { pending.append(next) }
        }
        return seen.sorted()
    }

    private func entry(from start: Int32) -> Entry {
        var entry = Entry()
        for state in closure(of: start) {
            if !states[Int(state)].moves.isEmpty { entry.states.append(state) }
            entry.calls += states[Int(state)].calls
        }
        return entry
    }

    // MARK: - States that lead nowhere

    /// Removes everything that leads to no end.
    private mutating func prune() throws(GrammarError) {
        let isLive = try completable { _ in true }
        for state in states.indices {
            guard isLive[state] else {
                states[state] = State()
                continue
            }
            states[state].empty.removeAll { !isLive[Int($0)] }
            states[state].moves.removeAll { !isLive[Int($0.target)] }
            states[state].calls.removeAll { !isLive[Int($0.target)] || !isLive[Int(starts[Int($0.rule)])] }
        }
    }

    /// Returns, by state, whether the end of its rule can be reached with allowed moves.
    private func completable(allowing allows: (Move) -> Bool) throws(GrammarError) -> [Bool] {
        var sources = [[Int32]](repeating: [], count: states.count)
        // Calls are listed by the state after them, and by the rule they call.
        var (returning, calling) = ([[(Int32, Call)]](repeating: [], count: states.count), [Int32: [(Int32, Call)]]())
        for (index, state) in states.enumerated() {
            try GrammarWork.check(index, every: 4096)
            for target in state.empty { sources[Int(target)].append(Int32(index)) }
            for move in state.moves where allows(move) { sources[Int(move.target)].append(Int32(index)) }
            for call in state.calls {
                returning[Int(call.target)].append((Int32(index), call))
                calling[starts[Int(call.rule)], default: []].append((Int32(index), call))
            }
        }
        var isDone = states.map(\.accepts)
        var pending = states.indices.filter { isDone[$0] }.map { Int32($0) }
        func visit(_ state: Int32) {
            if isDone[Int(state)] { return }
            isDone[Int(state)] = true
            pending.append(state)
        }
        var steps = 0
        while let state = pending.popLast() {
            steps += 1
            try GrammarWork.check(steps, every: 4096)
            for source in sources[Int(state)] { visit(source) }
            for (source, call) in returning[Int(state)] where isDone[Int(starts[Int(call.rule)])] { visit(source) }
            for (source, call) in calling[state] ?? [] where isDone[Int(call.target)] { visit(source) }
        }
        return isDone
    }

    // MARK: - Left corners

    /// Returns the rules that each rule may call before it reads anything.
    func leftCorners() -> [Set<Int32>] {
        starts.map { start in Set(closure(of: start).flatMap { states[Int($0)].calls.map(\.rule) }) }
    }

    /// Returns each rule's index in an order in which callers precede the rules they call before reading.
    ///
    /// - Returns: `nil` if rules call each other in a cycle.
    private func topologicalOrder() -> [Int32]? {
        let corners = entries.map { Set($0.calls.map(\.rule)) }
        var callers = [Int](repeating: 0, count: starts.count)
        for rule in corners.joined() { callers[Int(rule)] += 1 }
        var pending = callers.indices.filter { callers[$0] == 0 }
        var order = [Int32](repeating: -1, count: starts.count)
        var next: Int32 = 0
        while let rule = pending.popLast() {
            order[rule] = next
            next += 1
            for called in corners[rule] {
                callers[Int(called)] -= 1
                if callers[Int(called)] == 0 { pending.append(Int(called)) }
            }
        }
        return Int(next) == starts.count ? order : nil
    }
}

extension TransitionNetwork.State {
    fileprivate var isDead: Bool { !accepts && empty.isEmpty && moves.isEmpty && calls.isEmpty }
}
