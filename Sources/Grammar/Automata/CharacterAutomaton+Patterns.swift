extension CharacterAutomaton {
    /// Accepts the texts that a pattern matches as a whole or, with `search`, those in which it matches somewhere.
    init(_ pattern: Pattern, search: Bool) throws(GrammarError) {
        let any = Pattern.repeated(.set(.all), minimum: 0, maximum: nil)
        let whole: Pattern = search ? .sequence([any, pattern, any]) : pattern
        var network = PatternNetwork()
        let end = try network.add(whole, from: 0)
        try GrammarWork.spend(network.edges.count)
        self = try network.determinized(end: end)
    }
}

/// A non-deterministic automaton of a pattern, with edges that apply only at the beginning or the end of the text.
private struct PatternNetwork {
    enum Label {
        case empty, atStart, atEnd
        case set(ScalarSet)
    }

    var edges: [[(label: Label, target: Int)]] = [[]]

    private static let maxStates = 60_000
    /// Making the automaton deterministic may take this many steps, which bounds the time of hostile patterns.
    private static let maxWork = 2_000_000

    private mutating func addState() throws(GrammarError) -> Int {
        guard edges.count < Self.maxStates else {
            throw GrammarError(
                .tooLarge, "the pattern expands to more than \(Self.maxStates) states; lower its repetition counts")
        }
        edges.append([])
        return edges.count - 1
    }

    /// Adds the states of a pattern.
    ///
    /// - Returns: the state in which `pattern` has been matched from `start` on.
    mutating func add(_ pattern: Pattern, from start: Int) throws(GrammarError) -> Int {
        switch pattern {
        case .set(let set): return try link(.set(set), from: start)
        case .start: return try link(.atStart, from: start)
        case .end: return try link(.atEnd, from: start)
        case .sequence(let parts):
            var state = start
            for part in parts { state = try add(part, from: state) }
            return state
        case .choice(let options):
            let end = try addState()
            for option in options {
                let entry = try link(.empty, from: start)
                edges[try add(option, from: entry)].append((.empty, end))
            }
            return end
        case .repeated(let part, let minimum, let maximum): return try add(part, minimum, maximum, from: start)
        }
    }

    private mutating func link(_ label: Label, from start: Int) throws(GrammarError) -> Int {
        let end = try addState()
        edges[start].append((label, end))
        return end
    }

    private mutating func add(
        _ part: Pattern, _ minimum: Int, _ maximum: Int?, from start: Int
    ) throws(GrammarError) -> Int {
        var state = start
        for _ in 0..<minimum { state = try add(part, from: state) }
        let end = try addState()
        if let maximum {
            for _ in minimum..<maximum {
                edges[state].append((.empty, end))
                state = try add(part, from: try link(.empty, from: state))
            }
            edges[state].append((.empty, end))
        } else {
            let loop = try link(.empty, from: state)
            edges[loop].append((.empty, end))
            edges[try add(part, from: try link(.empty, from: loop))].append((.empty, loop))
        }
        return end
    }

    /// A place in the network: a state, whether a character was read before, whether the end was asserted.
    private struct Place: Hashable, Comparable {
        let bits: Int

        init(_ state: Int, hasRead: Bool, isOver: Bool) { bits = state << 2 | (hasRead ? 2 : 0) | (isOver ? 1 : 0) }

        var state: Int { bits >> 2 }
        var hasRead: Bool { bits & 2 != 0 }
        var isOver: Bool { bits & 1 != 0 }

        static func < (left: Self, right: Self) -> Bool { left.bits < right.bits }
    }

    /// Makes the network deterministic by the subset construction.
    func determinized(end: Int) throws(GrammarError) -> CharacterAutomaton {
        var work = 0
        let first = try closure([Place(0, hasRead: false, isOver: false)], &work)
        var (numbers, sets) = ([first: 0], [first])
        var states: [CharacterAutomaton.State] = []
        var edgeCount = 0
        while states.count < sets.count {
            let set = sets[states.count]
            var state = CharacterAutomaton.State(accepts: set.contains { $0.state == end })
            for interval in try intervals(behind: set, &work) {
                let next = try closure(interval.targets, &work)
                let target = numbers[next] ?? sets.count
                if target == sets.count {
                    numbers[next] = target
                    sets.append(next)
                }
                state.add(interval.range.lowerBound, interval.range.upperBound, to: target)
            }
            edgeCount += state.edges.count
            try CharacterAutomaton.check(states: sets.count, edges: edgeCount)
            states.append(state)
        }
        try GrammarWork.spend(work % GrammarWork.slice)
        return CharacterAutomaton(states: states).trimmed
    }

    private func closure(_ places: [Place], _ work: inout Int) throws(GrammarError) -> [Place] {
        var (seen, pending) = (Set(places), places)
        while let place = pending.popLast() {
            try spend(1, &work)
            for edge in edges[place.state] {
                let next: Place
                switch edge.label {
                case .empty: next = Place(edge.target, hasRead: place.hasRead, isOver: place.isOver)
                case .atStart where !place.hasRead: next = Place(edge.target, hasRead: false, isOver: place.isOver)
                case .atEnd: next = Place(edge.target, hasRead: place.hasRead, isOver: true)
                default: continue
                }
                if seen.insert(next).inserted { pending.append(next) }
            }
        }
        return seen.sorted()
    }

    /// Returns the scalars by which places can be left, cut so that all scalars of a range lead to the same targets.
    private func intervals(
        behind places: [Place], _ work: inout Int
    ) throws(GrammarError) -> [(range: ClosedRange<UInt32>, targets: [Place])] {
        var events: [(at: UInt32, opens: Bool, target: Place)] = []
        for place in places where !place.isOver {
            for edge in edges[place.state] {
                guard case .set(let set) = edge.label else { continue }
                let target = Place(edge.target, hasRead: true, isOver: false)
                for range in set.ranges {
                    events.append((range.lowerBound, true, target))
                    events.append((range.upperBound + 1, false, target))
                }
            }
        }
        try spend(events.count, &work)
        events.sort { $0.at < $1.at }
        var intervals: [(range: ClosedRange<UInt32>, targets: [Place])] = []
        var open: [Place: Int] = [:]
        var index = 0
        while index < events.count {
            let at = events[index].at
            while index < events.count, events[index].at == at {
                open[events[index].target, default: 0] += events[index].opens ? 1 : -1
                if open[events[index].target] == 0 { open[events[index].target] = nil }
                index += 1
            }
            guard index < events.count, !open.isEmpty else { continue }
            try spend(open.count, &work)
            intervals.append((at...events[index].at - 1, open.keys.sorted()))
        }
        return intervals
    }

    private func spend(_ count: Int, _ work: inout Int) throws(GrammarError) {
        let slices = (work + count) / GrammarWork.slice - work / GrammarWork.slice
        if slices > 0 { try GrammarWork.spend(slices * GrammarWork.slice) }
        work += count
        guard work <= Self.maxWork else {
            throw GrammarError(.tooLarge, "the pattern takes too long to compile; simplify it")
        }
    }
}
