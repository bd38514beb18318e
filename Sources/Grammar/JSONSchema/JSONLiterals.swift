import JSON
import Tokenization

extension JSONRules {
    /// Derives any of some values, each as `json.dumps` writes it, with any allowed blanks between its parts. Numbers
    /// are written as the schema writes them.
    ///
    /// - Throws: if the values have too many different characters.
    func literals(_ values: [JSONValue]) throws(GrammarError) -> Expression {
        if values.isEmpty { return .nothing }
        var tree = LiteralTree(blanks: blanks)
        for value in values { try tree.add(value) }
        return .graph(tree.graph)
    }
}

/// A tree of the texts of values. Texts that begin alike share their beginning, so that few places of the grammar are
/// possible at a time, however many values there are.
private struct LiteralTree {
    private(set) var graph = ExpressionGraph()
    private let blanks: Expression
    private var node = ExpressionGraph.start
    private var targets: [Edge: Int] = [:]
    private var ends: Set<Int> = []

    private struct Edge: Hashable {
        var node: Int
        /// A byte; `nil` for blanks.
        var byte: UInt8?
    }

    init(blanks: Expression) { self.blanks = blanks }

    mutating func add(_ value: JSONValue) throws(GrammarError) {
        node = ExpressionGraph.start
        try write(value)
        if ends.insert(node).inserted { graph.add(.empty, from: node, to: ExpressionGraph.end) }
    }

    private mutating func write(_ value: JSONValue) throws(GrammarError) {
        switch value {
        case .null: try write("null")
        case .bool(let flag): try write(flag ? "true" : "false")
        case .string: try write(value.pythonText)
        case .number(let number): try write(number.literal)
        case .array(let elements):
            try write("[")
            for (index, element) in elements.enumerated() {
                try beginPart(index)
                try write(element)
            }
            try move(by: nil)
            try write("]")
        case .object(let members):
            try write("{")
            for (index, member) in members.enumerated() {
                try beginPart(index)
                try write(JSONValue.string(member.key).pythonText + ":")
                try move(by: nil)
                try write(member.value)
            }
            try move(by: nil)
            try write("}")
        }
    }

    private mutating func beginPart(_ index: Int) throws(GrammarError) {
        if index > 0 { try write(",") }
        try move(by: nil)
    }

    private mutating func write(_ text: String) throws(GrammarError) {
        for byte in text.utf8 { try move(by: byte) }
    }

    private mutating func move(by byte: UInt8?) throws(GrammarError) {
        let edge = Edge(node: node, byte: byte)
        if let target = targets[edge] {
            node = target
            return
        }
        let target = graph.addNode()
        guard target < TransitionNetwork.maxStates else {
            throw GrammarError(.tooLarge, "the listed values need more than \(TransitionNetwork.maxStates) states")
        }
        try GrammarWork.check(target, every: 1024)
        graph.add(byte.map { .bytes([$0]) } ?? blanks, from: node, to: target)
        targets[edge] = target
        node = target
    }
}
