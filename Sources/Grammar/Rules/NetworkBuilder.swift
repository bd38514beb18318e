/// Translates rules into a transition network.
struct NetworkBuilder {
    private var network = TransitionNetwork()
    /// Maps the control tokens that the vocabulary has to their symbols.
    private let controlSymbols: [String: UInt16]
    /// Auxiliary rules, created for repeated expressions, that are still to be translated.
    private var pending: [(rule: Int32, expression: Expression)] = []
    /// Maps a target and ranges of bytes to the state that leads to the target by them.
    private var tails: [Tail: Int32] = [:]
    private var depth = 0

    private struct Tail: Hashable {
        var ranges: ArraySlice<ClosedRange<UInt8>>
        var target: Int32
    }

    private static let maxDepth = 400

    static func network(
        of rules: RuleSet, controlSymbols: [String: UInt16]
    ) throws(GrammarError) -> TransitionNetwork {
        var builder = NetworkBuilder(controlSymbols: controlSymbols)
        for _ in rules.expressions { builder.network.starts.append(try builder.network.addState()) }
        for (rule, expression) in rules.expressions.enumerated() {
            try builder.translate(Int32(rule), expression)
            while let next = builder.pending.popLast() { try builder.translate(next.rule, next.expression) }
        }
        try builder.network.prepare()
        return builder.network
    }

    private init(controlSymbols: [String: UInt16]) { self.controlSymbols = controlSymbols }

    private mutating func translate(_ rule: Int32, _ expression: Expression) throws(GrammarError) {
        let end = try network.addState()
        network.states[Int(end)].accepts = true
        try add(expression, from: network.starts[Int(rule)], to: end)
    }

    private mutating func add(_ expression: Expression, from start: Int32, to end: Int32) throws(GrammarError) {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.maxDepth else { throw GrammarError(.tooLarge, "the grammar is nested too deeply") }
        switch expression {
        case .bytes(let bytes): try add(bytes.map { UInt16($0)...UInt16($0) }, from: start, to: end)
        case .byteRange(let range):
            try add([UInt16(range.lowerBound)...UInt16(range.upperBound)], from: start, to: end)
        case .control(let spelling):
            if let symbol = controlSymbols[spelling] {
                try add([symbol...symbol], from: start, to: end)
            } else {
                try add(.text(spelling), from: start, to: end)
            }
        case .scalars(let set, let encoding): try add(set, encoding, from: start, to: end)
        case .automaton(let automaton, let encoding): try add(automaton, encoding, from: start, to: end)
        case .sequence(let parts):
            var state = start
            for (index, part) in parts.enumerated() {
                let next = index == parts.count - 1 ? end : try network.addState()
                try add(part, from: state, to: next)
                state = next
            }
            if parts.isEmpty { network.states[Int(start)].empty.append(end) }
        case .choice(let options):
            for option in options {
                // Separate states, because a loop in one option must not leak into another.
                let (entry, exit) = (try network.addState(), try network.addState())
                network.states[Int(start)].empty.append(entry)
                try add(option, from: entry, to: exit)
                network.states[Int(exit)].empty.append(end)
            }
        case .repeated(let part, let minimum, let maximum): try add(part, minimum, maximum, from: start, to: end)
        case .rule(let rule): call(Int32(rule), from: start, to: end)
        case .graph(let graph):
            // Separate states for both ends, because edges may lead back to them.
            var nodes: [Int32] = []
            for _ in 0..<graph.nodeCount { nodes.append(try network.addState()) }
            network.states[Int(start)].empty.append(nodes[ExpressionGraph.start])
            network.states[Int(nodes[ExpressionGraph.end])].empty.append(end)
            for edge in graph.edges { try add(edge.expression, from: nodes[edge.from], to: nodes[edge.to]) }
        }
    }

    private mutating func call(_ rule: Int32, from start: Int32, to end: Int32) {
        network.states[Int(start)].calls.append(TransitionNetwork.Call(rule: rule, target: end))
    }

    private mutating func add(_ symbols: [ClosedRange<UInt16>], from start: Int32, to end: Int32) throws(GrammarError) {
        var state = start
        for (index, range) in symbols.enumerated() {
            let next = index == symbols.count - 1 ? end : try network.addState()
            network.states[Int(state)].moves.append(
                TransitionNetwork.Move(low: range.lowerBound, high: range.upperBound, target: next))
            state = next
        }
        if symbols.isEmpty { network.states[Int(start)].empty.append(end) }
    }

    // MARK: - Repetition

    private mutating func add(
        _ part: Expression, _ minimum: Int, _ maximum: Int?, from start: Int32, to end: Int32
    ) throws(GrammarError) {
        guard max(minimum, maximum ?? 0) < TransitionNetwork.maxStates else {
            throw GrammarError(
                .tooLarge,
                "a repetition of \(max(minimum, maximum ?? 0)); the most is \(TransitionNetwork.maxStates - 1)")
        }
        let once = try shared(part, repetitions: max(minimum + (maximum == nil ? 1 : 0), maximum ?? 0))
        var state = try network.addState()
        network.states[Int(start)].empty.append(state)
        for _ in 0..<minimum {
            let next = try network.addState()
            try add(once, from: state, to: next)
            state = next
        }
        if let maximum {
            for _ in minimum..<max(minimum, maximum) {
                network.states[Int(state)].empty.append(end)
                let next = try network.addState()
                try add(once, from: state, to: next)
                state = next
            }
        } else {
            // A separate state, so that nothing else enters the loop.
            let loop = try network.addState()
            network.states[Int(state)].empty.append(loop)
            try add(once, from: loop, to: loop)
            state = loop
        }
        network.states[Int(state)].empty.append(end)
    }

    /// Makes an expression that is repeated often a separate rule, which each repetition calls.
    private mutating func shared(_ part: Expression, repetitions: Int) throws(GrammarError) -> Expression {
        guard repetitions > 1 else { return part }
        switch part {
        case .rule, .byteRange, .control: return part
        case .bytes(let bytes) where bytes.count <= 1: return part
        default:
            let rule = Int32(network.starts.count)
            network.starts.append(try network.addState())
            pending.append((rule, part))
            return .rule(Int(rule))
        }
    }

    // MARK: - Characters

    private mutating func add(
        _ automaton: CharacterAutomaton, _ encoding: ScalarEncoding, from start: Int32, to end: Int32
    ) throws(GrammarError) {
        var nodes: [Int32] = []
        for _ in automaton.states { nodes.append(try network.addState()) }
        network.states[Int(start)].empty.append(nodes[0])
        for (index, state) in automaton.states.enumerated() {
            if state.accepts { network.states[Int(nodes[index])].empty.append(end) }
            for (target, edges) in Dictionary(grouping: state.edges, by: \.target).sorted(by: { $0.key < $1.key }) {
                try add(ScalarSet(edges.map { $0.low...$0.high }), encoding, from: nodes[index], to: nodes[target])
            }
        }
    }

    private mutating func add(
        _ set: ScalarSet, _ encoding: ScalarEncoding, from start: Int32, to end: Int32
    ) throws(GrammarError) {
        var raw = set
        if encoding == .jsonString {
            let escaped = set.intersection(JSONText.escapedScalars)
            raw = set.subtracting(JSONText.escapedScalars)
            for value in escaped.ranges.joined() {
                for spelling in JSONText.escapes(of: value) {
                    try add(spelling.utf8.map { UInt16($0)...UInt16($0) }, from: start, to: end)
                }
            }
        }
        for range in raw.ranges {
            for bytes in UTF8Ranges.sequences(range) { try add(bytes[...], from: start, to: end) }
        }
    }

    /// Adds moves by ranges of bytes. Sequences with equal remainders that end at the same state share their tails.
    private mutating func add(
        _ ranges: ArraySlice<ClosedRange<UInt8>>, from start: Int32, to end: Int32
    ) throws(GrammarError) {
        guard let first = ranges.first else { return }
        let rest = ranges.dropFirst()
        var next = end
        if !rest.isEmpty {
            if let known = tails[Tail(ranges: rest, target: end)] {
                next = known
            } else {
                next = try network.addState()
                try add(rest, from: next, to: end)
                tails[Tail(ranges: rest, target: end)] = next
            }
        }
        network.states[Int(start)].moves.append(
            TransitionNetwork.Move(low: UInt16(first.lowerBound), high: UInt16(first.upperBound), target: next))
    }
}
