import JSON
import Tokenization

extension SchemaCompiler {
    private struct Property {
        var key: String
        var value: Expression
        var isRequired: Bool
    }

    /// Derives members in the order of the schema, each at most once, then those that the schema does not name. Nodes
    /// of the graph are (next property, members so far), the latter up to where it stops to matter.
    mutating func object(_ constraints: SchemaConstraints) throws(GrammarError) -> Expression {
        guard constraints.minProperties <= constraints.maxProperties ?? .max else { return .nothing }
        guard constraints.shapes.reduce(0, { $0 + $1.patterns.count }) <= 8 else {
            throw GrammarError(.tooLarge, "more than 8 patternProperties together")
        }
        let properties = try properties(constraints)
        let others = try otherMembers(constraints, beside: properties)
        if !others.isEmpty, constraints.minProperties > max(1, properties.count { $0.isRequired } + 1) {
            throw GrammarError(
                .unsupported,
                "minProperties \(constraints.minProperties) is not supported where properties are not named: "
                    + "a grammar cannot keep their names apart")
        }
        let last = max(1, constraints.minProperties, constraints.maxProperties ?? 0)
        guard last <= 10_000, last * (properties.count + 1) <= 200_000 else {
            throw GrammarError(.tooLarge, "too many properties with minProperties or maxProperties")
        }
        try countObjectStates((properties.count + 1) * (last + 1))
        var graph = ExpressionGraph()
        var nodes: [[Int]] = []
        for _ in 0...properties.count { nodes.append((0...last).map { _ in graph.addNode() }) }
        graph.add(.sequence([.bytes([0x7B]), json.blanks]), from: ExpressionGraph.start, to: nodes[0][0])
        for (index, property) in properties.enumerated() {
            let member = Expression.sequence([
                JSONRules.literal(property.key), .bytes([0x3A]), json.blanks, property.value,
            ])
            for count in 0...last {
                if !property.isRequired { graph.add(.empty, from: nodes[index][count], to: nodes[index + 1][count]) }
                add(member, count, last, constraints.maxProperties, &graph, from: nodes[index], to: nodes[index + 1])
            }
        }
        for (count, node) in nodes[properties.count].enumerated() {
            for other in others {
                add(
                    other, count, last, constraints.maxProperties, &graph, from: nodes[properties.count],
                    to: nodes[properties.count])
            }
            guard count >= constraints.minProperties else { continue }
            graph.add(.sequence([json.blanks, .bytes([0x7D])]), from: node, to: ExpressionGraph.end)
        }
        return .graph(graph)
    }

    private func add(
        _ member: Expression, _ count: Int, _ last: Int, _ most: Int?, _ graph: inout ExpressionGraph, from: [Int],
        to: [Int]
    ) {
        if let most, count >= most { return }
        let next = count == 0 ? member : .sequence([.bytes([0x2C]), json.blanks, member])
        graph.add(next, from: from[count], to: to[min(count + 1, last)])
    }

    private mutating func properties(_ constraints: SchemaConstraints) throws(GrammarError) -> [Property] {
        var properties: [Property] = []
        for (key, parts, isRequired) in try namedProperties(constraints) {
            var isNameAllowed = true
            for part in constraints.propertyNames where try !reader.validates(.string(key), [part]) {
                isNameAllowed = false
            }
            let value = isNameAllowed ? try rule(for: parts) : .nothing
            properties.append(Property(key: key, value: value, isRequired: isRequired))
        }
        return properties
    }

    /// Returns the named properties, in the order in which they are named, with the parts that apply to their values.
    func namedProperties(
        _ constraints: SchemaConstraints
    ) throws(GrammarError) -> [(key: String, parts: [Int], isRequired: Bool)] {
        var seen: Set<JSONKey> = []
        var properties: [(key: String, parts: [Int], isRequired: Bool)] = []
        for key in constraints.shapes.flatMap(\.keys) + constraints.required.names
        where seen.insert(JSONKey(key)).inserted {
            try GrammarWork.check(seen.count, every: 256)
            let parts = try constraints.parts(ofProperty: key)
            properties.append((key, parts, constraints.required.contains(key)))
        }
        return properties
    }

    /// Derives members whose names the schema does not list, by the patterns that their names match.
    private mutating func otherMembers(
        _ constraints: SchemaConstraints, beside properties: [Property]
    ) throws(GrammarError) -> [Expression] {
        let patterns = constraints.shapes.flatMap(\.patterns)
        if patterns.isEmpty, constraints.propertyNames.isEmpty, properties.isEmpty {
            let parts = constraints.shapes.compactMap(\.additional)
            return [.sequence([json.string, .bytes([0x3A]), json.blanks, try rule(for: parts)])]
        }
        let excludesOthers = constraints.shapes.compactMap(\.additional).contains {
            reader.document.nodes[$0].value.bool == false
        }
        if patterns.isEmpty, constraints.propertyNames.isEmpty, excludesOthers { return [] }
        var names = try nameAutomaton(constraints)
        if !properties.isEmpty { names = try names.subtracting(CharacterAutomaton(texts: properties.map(\.key))) }
        var automata: [CharacterAutomaton] = []
        for (pattern, _) in patterns { automata.append(try pattern.automaton) }
        var members: [Expression] = []
        for matches in 0..<1 << patterns.count {
            var selected = names
            for (index, automaton) in automata.enumerated() {
                let isMatched = matches >> index & 1 == 1
                selected = try isMatched ? selected.intersection(automaton) : selected.subtracting(automaton)
            }
            if selected.isEmpty { continue }
            var (parts, first) = ([Int](), 0)
            for shape in constraints.shapes {
                let matched = shape.patterns.indices.filter { matches >> (first + $0) & 1 == 1 }
                first += shape.patterns.count
                parts += matched.isEmpty ? shape.additional.map { [$0] } ?? [] : matched.map { shape.patterns[$0].node }
            }
            if parts.contains(where: { reader.document.nodes[$0].value.bool == false }) { continue }
            let key = Expression.sequence([.bytes([0x22]), .automaton(selected, .jsonString), .bytes([0x22])])
            members.append(.sequence([key, .bytes([0x3A]), json.blanks, try rule(for: parts)]))
        }
        return members
    }

    /// Accepts the names that `propertyNames` allows.
    private mutating func nameAutomaton(_ constraints: SchemaConstraints) throws(GrammarError) -> CharacterAutomaton {
        guard !constraints.propertyNames.isEmpty else { return .anything }
        let path = reader.document.nodes[constraints.propertyNames[0]].path
        let names = try reader.constraints(of: constraints.propertyNames)
        guard names.groups.isEmpty, names.negated.isEmpty else {
            throw GrammarError(.unsupported, at: path, "propertyNames with anyOf, oneOf or not is not supported")
        }
        if names.values != nil || !names.kinds.contains(.string) {
            let values = try reader.listedValues(names, of: constraints.propertyNames) ?? []
            return CharacterAutomaton(texts: values.compactMap(\.string))
        }
        if let automaton = try textAutomaton(names) { return automaton }
        return try CharacterAutomaton(lengths: names.minLength, names.maxLength)
    }
}
