/// A deterministic automaton over Unicode scalars. State 0 is the start, and a missing edge rejects.
///
/// Patterns, formats, bounds of numbers and names of properties become such automata, because those can be
/// intersected and complemented.
struct CharacterAutomaton: Sendable, Equatable {
    struct Edge: Sendable, Equatable {
        var low, high: UInt32
        var target: Int
    }

    struct State: Sendable, Equatable {
        /// The edges in ascending order, without overlap.
        var edges: [Edge] = []
        var accepts = false
    }

    private(set) var states: [State]

    /// An automaton with more states is refused.
    static let maxStates = 20_000
    /// An automaton with more edges, over all states, is refused.
    static let maxEdges = 400_000

    init(states: [State]) {
        precondition(!states.isEmpty, "an automaton has a start")
        self.states = states
    }

    /// Accepts every text.
    static let anything = CharacterAutomaton(
        states: [
            State(
                edges: ScalarSet.all.ranges.map { Edge(low: $0.lowerBound, high: $0.upperBound, target: 0) },
                accepts: true)
        ])

    /// Accepts exactly these texts.
    init(texts: some Sequence<String>) {
        var states = [State()]
        // The target of each edge by its state and scalar.
        var targets: [UInt64: Int] = [:]
        for text in texts {
            var state = 0
            for scalar in text.unicodeScalars {
                let edge = UInt64(state) << 32 | UInt64(scalar.value)
                if let target = targets[edge] {
                    state = target
                } else {
                    targets[edge] = states.count
                    states[state].edges.append(Edge(low: scalar.value, high: scalar.value, target: states.count))
                    state = states.count
                    states.append(State())
                }
            }
            states[state].accepts = true
        }
        for state in states.indices { states[state].edges.sort { $0.low < $1.low } }
        self.states = states
    }

    /// Accepts texts of `minimum` to `maximum` scalars.
    init(lengths minimum: Int, _ maximum: Int?) throws(GrammarError) {
        let last = maximum ?? minimum
        guard last < Self.maxStates else {
            throw GrammarError(.tooLarge, "a length of \(last); the most is \(Self.maxStates - 1)")
        }
        try GrammarWork.spend(last)
        states = (0...max(last, minimum)).map { count in
            let target = count < last ? count + 1 : maximum == nil ? count : -1
            return State(
                edges: target < 0
                    ? [] : ScalarSet.all.ranges.map { Edge(low: $0.lowerBound, high: $0.upperBound, target: target) },
                accepts: count >= minimum && count <= last)
        }
    }

    /// True if no text is accepted.
    var isEmpty: Bool { !liveStates()[0] }

    func accepts(_ text: String) -> Bool {
        var state = 0
        for scalar in text.unicodeScalars {
            guard let edge = states[state].edges.first(where: { $0.low...$0.high ~= scalar.value }) else {
                return false
            }
            state = edge.target
        }
        return states[state].accepts
    }

    /// Accepts what this automaton rejects.
    var complement: CharacterAutomaton {
        var result = states
        let sink = states.count
        result.append(State())
        for state in result.indices {
            let covered = ScalarSet(result[state].edges.map { $0.low...$0.high })
            let gaps = covered.complement.ranges.map { Edge(low: $0.lowerBound, high: $0.upperBound, target: sink) }
            result[state].edges = (result[state].edges + gaps).sorted { $0.low < $1.low }
            result[state].accepts.toggle()
        }
        return CharacterAutomaton(states: result)
    }

    /// Accepts what both automata accept.
    func intersection(_ other: CharacterAutomaton) throws(GrammarError) -> CharacterAutomaton {
        var numbers = [Pair(first: 0, second: 0): 0]
        var pairs = [Pair(first: 0, second: 0)]
        var result: [State] = []
        var (edgeCount, steps) = (0, 0)
        while result.count < pairs.count {
            if result.count % 64 == 63 {
                try GrammarWork.spend(steps)
                steps = 0
            }
            let pair = pairs[result.count]
            let (mine, theirs) = (states[pair.first], other.states[pair.second])
            steps += 1 + mine.edges.count + theirs.edges.count
            var state = State(accepts: mine.accepts && theirs.accepts)
            var (left, right) = (0, 0)
            while left < mine.edges.count, right < theirs.edges.count {
                let (a, b) = (mine.edges[left], theirs.edges[right])
                let (low, high) = (max(a.low, b.low), min(a.high, b.high))
                if low <= high {
                    let next = Pair(first: a.target, second: b.target)
                    let target = numbers[next] ?? pairs.count
                    if target == pairs.count {
                        numbers[next] = target
                        pairs.append(next)
                    }
                    state.add(low, high, to: target)
                }
                if a.high < b.high { left += 1 } else { right += 1 }
            }
            edgeCount += state.edges.count
            try Self.check(states: pairs.count, edges: edgeCount)
            result.append(state)
        }
        try GrammarWork.spend(steps)
        return CharacterAutomaton(states: result).trimmed
    }

    func subtracting(_ other: CharacterAutomaton) throws(GrammarError) -> CharacterAutomaton {
        try GrammarWork.spend(other.states.count)
        return try intersection(other.complement)
    }

    private struct Pair: Hashable {
        let first, second: Int
    }

    static func check(states: Int, edges: Int) throws(GrammarError) {
        guard states <= maxStates, edges <= maxEdges else {
            throw GrammarError(
                .tooLarge,
                "the automaton needs more than \(maxStates) states or \(maxEdges) edges; simplify the pattern")
        }
    }

    /// Accepts the same texts, without edges that lead to no accepted text.
    var trimmed: CharacterAutomaton {
        let isLive = liveStates()
        return CharacterAutomaton(
            states: states.map { state in
                State(edges: state.edges.filter { isLive[$0.target] }, accepts: state.accepts)
            })
    }

    /// Returns, by state, whether a text can still be accepted from it.
    private func liveStates() -> [Bool] {
        var sources = [[Int]](repeating: [], count: states.count)
        for (state, content) in states.enumerated() {
            for edge in content.edges where sources[edge.target].last != state { sources[edge.target].append(state) }
        }
        var isLive = states.map(\.accepts)
        var pending = states.indices.filter { isLive[$0] }
        while let state = pending.popLast() {
            for source in sources[state] where !isLive[source] {
                isLive[source] = true
                pending.append(source)
            }
        }
        return isLive
    }
}

extension CharacterAutomaton.State {
    /// Appends an edge, or extends the last one if they touch and have the same target.
    mutating func add(_ low: UInt32, _ high: UInt32, to target: Int) {
        if let last = edges.last, last.target == target, last.high + 1 == low {
            edges[edges.count - 1].high = high
        } else {
            edges.append(CharacterAutomaton.Edge(low: low, high: high, target: target))
        }
    }
}
