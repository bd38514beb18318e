import JSON
import Tokenization

/// Translates a JSON Schema (draft 2020-12) into rules.
///
/// A rule belongs to a set of schema parts that apply to one value together, so that `allOf`, `$ref` and the parts
/// beside them are merged, and recursion ends at existing rules. Properties are written in the order of the schema,
/// further ones after them. Numbers within bounds have no exponent.
struct SchemaCompiler {
    var reader: SchemaReader
    var rules: RuleSet
    let json: JSONRules
    private var ruleOfParts: [[Int]: Int] = [:]
    private var pending: [(rule: Int, parts: [Int])] = []
    /// The number of nodes in the graphs of objects, each of which becomes a state.
    private var objectStates = 0

    private static let maxAlternatives = 1024

    /// Adds the rules of a schema.
    ///
    /// - Returns: the expression that derives the values that satisfy it.
    static func compile(
        _ schema: JSONValue, _ json: JSONRules, into rules: inout RuleSet
    ) throws(GrammarError) -> Expression {
        var compiler = try SchemaCompiler(schema, json, rules)
        let root = try compiler.rule(for: [0])
        try compiler.definePending()
        rules = compiler.rules
        return root
    }

    init(_ schema: JSONValue, _ json: JSONRules, _ rules: RuleSet) throws(GrammarError) {
        reader = try SchemaReader(schema)
        self.rules = rules
        self.json = json
    }

    /// Translates the sets of parts that need rules, and the sets that those need in turn.
    mutating func definePending() throws(GrammarError) {
        while let next = pending.popLast() {
            do {
                rules.define(next.rule, try expression(for: next.parts))
            } catch {
                throw error.place.isEmpty ? error.within(reader.document.nodes[next.parts[0]].path) : error
            }
        }
    }

    /// Returns the rule that derives the values that satisfy all of the parts.
    mutating func rule(for parts: [Int]) throws(GrammarError) -> Expression {
        let parts = Set(parts).filter { !isTrue($0) }.sorted()
        if parts.isEmpty { return json.value }
        if let known = ruleOfParts[parts] { return .rule(known) }
        let rule = try rules.declare()
        ruleOfParts[parts] = rule
        pending.append((rule, parts))
        return .rule(rule)
    }

    /// Counts nodes of the graph of an object, before it is made.
    ///
    /// - Throws: an error once the objects of the schema alone need too many states. Without it, an object of thousands of
    ///   properties would be derived for each part that refers to it before the grammar is found to be too large.
    mutating func countObjectStates(_ count: Int) throws(GrammarError) {
        objectStates += count
        guard objectStates <= TransitionNetwork.maxStates else {
            throw GrammarError(
                .tooLarge,
                "the schema's objects need more than \(TransitionNetwork.maxStates) states; use fewer properties, or fewer "
                    + "references to objects with many")
        }
    }

    private func isTrue(_ part: Int) -> Bool {
        let value = reader.document.nodes[part].value
        return value.bool == true || value.object?.isEmpty == true
    }

    private mutating func expression(for parts: [Int]) throws(GrammarError) -> Expression {
        let whole = try reader.constraints(of: parts)
        // A pure choice: each option has its own rule, which others may share.
        if whole.isUnconstrained, whole.groups.count == 1 {
            if whole.groups[0].isExclusive { try requireDisjoint(whole.groups[0], beside: []) }
            var options: [Expression] = []
            for option in whole.groups[0].options { options.append(try rule(for: [option])) }
            return .choice(options)
        }
        var options: [Expression] = []
        for (parts, constraints) in try alternatives(of: parts) {
            options.append(try expression(constraints, parts))
        }
        return .choice(options)
    }

    /// Returns the parts with one option of each of their groups, in every combination.
    mutating func alternatives(
        of parts: [Int]
    ) throws(GrammarError) -> [(parts: [Int], constraints: SchemaConstraints)] {
        var found: [(parts: [Int], constraints: SchemaConstraints)] = []
        var pending = [(parts: parts, done: Set<JSONKey>())]
        var count = 0
        while let (parts, done) = pending.popLast() {
            count += 1
            guard count <= Self.maxAlternatives else {
                throw GrammarError(
                    .tooLarge, at: reader.document.nodes[parts[0]].path,
                    "the alternatives have more than \(Self.maxAlternatives) combinations")
            }
            let constraints = try reader.constraints(of: parts)
            guard let group = constraints.groups.first(where: { !done.contains(JSONKey($0.path)) }) else {
                found.append((parts, constraints))
                continue
            }
            if group.isExclusive { try requireDisjoint(group, beside: parts) }
            for option in group.options.reversed() {
                pending.append((parts + [option], done.union([JSONKey(group.path)])))
            }
        }
        return found
    }

    private mutating func expression(
        _ constraints: SchemaConstraints, _ parts: [Int]
    ) throws(GrammarError) -> Expression {
        if let values = try reader.listedValues(constraints, of: parts) { return try json.literals(values) }
        var constraints = constraints
        let excluded = try exclude(&constraints)
        var options: [Expression] = []
        for kind in SchemaConstraints.Kind.allCases where constraints.kinds.contains(kind) {
            if let refusal = constraints.refusals.first(where: { $0.kind == kind }), !isHarmless(kind, constraints) {
                throw refusal.error
            }
            switch kind {
            case .null: options.append(.text("null"))
            case .boolean: options += [.text("true"), .text("false")]
            case .number: options.append(try number(constraints))
            case .string: options.append(try string(constraints, excluding: excluded))
            case .array: options.append(try array(constraints))
            case .object: options.append(try object(constraints))
            }
        }
        return .choice(options)
    }

    /// Returns true if `uniqueItems` is satisfied anyway, because there is at most one item.
    private func isHarmless(_ kind: SchemaConstraints.Kind, _ constraints: SchemaConstraints) -> Bool {
        kind == .array && constraints.maxItems ?? .max == 0
            || kind == .array && constraints.maxItems ?? .max <= 1
                && constraints.refusals.allSatisfy { $0.error.place.hasSuffix("/uniqueItems") }
    }

    /// Applies `not`, if it excludes types, listed strings or a single required property.
    ///
    /// - Returns: the strings that are excluded.
    mutating func exclude(_ constraints: inout SchemaConstraints) throws(GrammarError) -> [String] {
        var strings: [String] = []
        for part in constraints.negated {
            let path = reader.document.nodes[part].path
            let negated = try reader.constraints(of: [part])
            if negated.kinds.isEmpty { continue }
            var plain = negated
            (plain.kinds, plain.values) = (Set(SchemaConstraints.Kind.allCases), nil)
            let (kinds, required) = (negated.kinds, plain.required)
            plain.required = SchemaConstraints.NameList()
            guard plain.isUnconstrained, plain.groups.isEmpty, required.count <= 1 else { throw notSupported(path) }
            if let values = negated.values, required.isEmpty {
                for value in values.all where kinds.contains(value.kind) && constraints.kinds.contains(value.kind) {
                    guard let text = value.string else { throw notSupported(path) }
                    strings.append(text)
                }
            } else if let key = required.first, negated.values == nil {
                // Values other than objects satisfy `required`, so `not` excludes all of them.
                constraints.kinds.formIntersection(kinds.contains(.object) ? [.object] : [])
                constraints.kinds.formUnion(Set(SchemaConstraints.Kind.allCases).subtracting(kinds))
                let forbidden = try reader.document.number(.bool(false), path + " (forbidden)")
                var shape = SchemaConstraints.ObjectShape()
                shape.add(key, forbidden)
                constraints.shapes.append(shape)
            } else if required.isEmpty {
                constraints.kinds.subtract(kinds)
            } else {
                throw notSupported(path)
            }
        }
        return strings
    }

    private func notSupported(_ path: String) -> GrammarError {
        GrammarError(
            .unsupported, at: path,
            "not is supported for types, for enum and const of strings, and for one required property")
    }

    // MARK: - Numbers and strings

    private func number(_ constraints: SchemaConstraints) throws(GrammarError) -> Expression {
        if constraints.lower == nil, constraints.upper == nil, constraints.multiples.isEmpty {
            return constraints.integersOnly ? json.integer : json.number
        }
        return try NumberAutomata.expression(
            lower: constraints.lower, upper: constraints.upper, integersOnly: constraints.integersOnly,
            multiples: constraints.multiples)
    }

    private func string(
        _ constraints: SchemaConstraints, excluding excluded: [String]
    ) throws(GrammarError) -> Expression {
        if let most = constraints.maxLength, most < constraints.minLength { return .nothing }
        let quote = Expression.bytes([0x22])
        guard let automaton = try textAutomaton(constraints, excluding: excluded) else {
            if constraints.minLength == 0, constraints.maxLength == nil { return json.string }
            let text = Expression.repeated(
                json.character, minimum: constraints.minLength, maximum: constraints.maxLength)
            return .sequence([quote, text, quote])
        }
        return .sequence([quote, .automaton(automaton, .jsonString), quote])
    }

    /// Returns the automaton of a string's text; `nil` if only its length is restricted.
    func textAutomaton(
        _ constraints: SchemaConstraints, excluding excluded: [String] = []
    ) throws(GrammarError) -> CharacterAutomaton? {
        let automata = try constraints.textAutomata()
        guard var automaton = automata.first ?? (excluded.isEmpty ? nil : .anything) else { return nil }
        for other in automata.dropFirst() { automaton = try automaton.intersection(other) }
        if constraints.minLength > 0 || constraints.maxLength != nil {
            automaton = try automaton.intersection(
                CharacterAutomaton(lengths: constraints.minLength, constraints.maxLength))
        }
        return excluded.isEmpty ? automaton : try automaton.subtracting(CharacterAutomaton(texts: excluded))
    }

    // MARK: - Arrays

    private static let maxListed = 20_000

    private mutating func array(_ constraints: SchemaConstraints) throws(GrammarError) -> Expression {
        let most = constraints.maxItems ?? .max
        guard constraints.minItems <= most else { return .nothing }
        let prefix = constraints.tuples.map(\.prefix.count).max() ?? 0
        // From this index on all items have the same parts.
        let alike = max(min(prefix, most), constraints.minItems)
        let counted = constraints.maxItems ?? alike
        guard max(counted, alike) <= Self.maxListed else {
            throw GrammarError(.tooLarge, "minItems or maxItems above \(Self.maxListed) are not supported")
        }
        var graph = ExpressionGraph()
        // Holds the node after each number of items.
        var node = graph.addNode()
        graph.add(.sequence([.bytes([0x5B]), json.blanks]), from: ExpressionGraph.start, to: node)
        let close = graph.addNode()
        graph.add(.sequence([json.blanks, .bytes([0x5D])]), from: close, to: ExpressionGraph.end)
        for index in 0..<max(counted, alike) {
            if index >= constraints.minItems { graph.add(.empty, from: node, to: close) }
            let next = graph.addNode()
            graph.add(try item(index, constraints), from: node, to: next)
            node = next
        }
        graph.add(.empty, from: node, to: close)
        if constraints.maxItems == nil {
            let loop = graph.addNode()
            graph.add(try item(alike, constraints), from: node, to: loop)
            graph.add(try item(max(alike, 1), constraints), from: loop, to: loop)
            graph.add(.empty, from: loop, to: close)
        }
        return .graph(graph)
    }

    private mutating func item(_ index: Int, _ constraints: SchemaConstraints) throws(GrammarError) -> Expression {
        let value = try rule(for: constraints.parts(ofItem: index))
        return index == 0 ? value : .sequence([.bytes([0x2C]), json.blanks, value])
    }
}
