/// Describes the texts that a rule derives.
indirect enum Expression: Sendable {
    case bytes([UInt8])
    /// Derives one byte of a range.
    case byteRange(ClosedRange<UInt8>)
    case scalars(ScalarSet, ScalarEncoding)
    case automaton(CharacterAutomaton, ScalarEncoding)
    /// Derives a control token, by its spelling; if the vocabulary has no such token, its bytes.
    case control(String)
    case sequence([Expression])
    case choice([Expression])
    case repeated(Expression, minimum: Int, maximum: Int?)
    case rule(Int)
    case graph(ExpressionGraph)

    static let empty = Expression.sequence([])
    /// Derives nothing, not even the empty text.
    static let nothing = Expression.choice([])

    static func text(_ text: String) -> Expression { .bytes(Array(text.utf8)) }
}

/// Says how a scalar is written as bytes.
enum ScalarEncoding: Sendable {
    case utf8
    /// Writes scalars as parts of a JSON string in the canonical way: only quotes, backslashes and control characters
    /// are escaped.
    case jsonString
}

/// A graph with expressions on its edges. It derives the texts of all paths from node 0 to node 1.
struct ExpressionGraph: Sendable {
    private(set) var nodeCount = 2
    private(set) var edges: [(from: Int, to: Int, expression: Expression)] = []

    static let start = 0
    static let end = 1

    mutating func addNode() -> Int {
        nodeCount += 1
        return nodeCount - 1
    }

    mutating func add(_ expression: Expression, from source: Int, to target: Int) {
        edges.append((source, target, expression))
    }
}

/// Holds rules by number; the first is the root.
struct RuleSet: Sendable {
    private(set) var expressions: [Expression] = [.nothing]

    static let root = 0
    static let maxRules = 50_000

    /// Adds a rule that derives nothing until it is defined.
    mutating func declare() throws(GrammarError) -> Int {
        guard expressions.count < Self.maxRules else {
            throw GrammarError(.tooLarge, "more than \(Self.maxRules) rules")
        }
        expressions.append(.nothing)
        return expressions.count - 1
    }

    mutating func define(_ rule: Int, _ expression: Expression) { expressions[rule] = expression }

    mutating func add(_ expression: Expression) throws(GrammarError) -> Int {
        let rule = try declare()
        define(rule, expression)
        return rule
    }

    /// Makes every call of the root call another rule.
    mutating func redirectRoot(to rule: Int) {
        expressions = expressions.map { $0.redirecting(from: Self.root, to: rule) }
    }
}

extension Expression {
    fileprivate func redirecting(from old: Int, to new: Int) -> Expression {
        switch self {
        case .rule(old): return .rule(new)
        case .sequence(let parts): return .sequence(parts.map { $0.redirecting(from: old, to: new) })
        case .choice(let parts): return .choice(parts.map { $0.redirecting(from: old, to: new) })
        case .repeated(let part, let minimum, let maximum):
            return .repeated(part.redirecting(from: old, to: new), minimum: minimum, maximum: maximum)
        // Only schemas create graphs, and those never call the root.
        default: return self
        }
    }
}
