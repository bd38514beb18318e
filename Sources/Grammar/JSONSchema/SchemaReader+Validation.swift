import JSON
import Tokenization

/// Checks given values against parts of a schema, because enumerations are filtered by the keywords beside them.
extension SchemaReader {
    /// Returns true if the value satisfies all parts.
    ///
    /// - Throws: if a keyword that matters for the value is not supported.
    mutating func validates(_ value: JSONValue, _ parts: [Int], depth: Int = 0) throws(GrammarError) -> Bool {
        guard depth <= JSONLimits().maxDepth * 2 else {
            throw GrammarError(.tooLarge, at: document.nodes[parts[0]].path, "the schema refers to itself too often")
        }
        let constraints = try constraints(of: parts)
        guard constraints.kinds.contains(value.kind) else { return false }
        for refusal in constraints.refusals where refusal.kind == value.kind { throw refusal.error }
        if let values = constraints.values, !values.contains(where: { $0.equals(value) }) { return false }
        let isValid: Bool =
            switch value {
            case .number(let number): try validates(number, constraints)
            case .string(let text): try validates(text, constraints)
            case .array(let elements): try validates(elements, constraints, depth: depth)
            case .object(let members): try validates(members, constraints, depth: depth)
            case .null, .bool: true
            }
        guard isValid else { return false }
        for part in constraints.negated where try validates(value, [part], depth: depth + 1) { return false }
        for group in constraints.groups {
            var count = 0
            for option in group.options where try validates(value, [option], depth: depth + 1) { count += 1 }
            guard count == 1 || (count > 1 && !group.isExclusive) else { return false }
        }
        return true
    }

    private func validates(_ number: JSONNumber, _ constraints: SchemaConstraints) throws(GrammarError) -> Bool {
        guard let value = DecimalNumber(number) else {
            throw GrammarError(.tooLarge, "a number of too many digits: \(number.literal.prefix(40))…")
        }
        if constraints.integersOnly, !value.isInteger { return false }
        if let bound = constraints.lower, value < bound.value || (bound.isExclusive && value == bound.value) {
            return false
        }
        if let bound = constraints.upper, value > bound.value || (bound.isExclusive && value == bound.value) {
            return false
        }
        for step in constraints.multiples {
            guard let isMultiple = value.isMultiple(of: step) else {
                throw GrammarError(.unsupported, "multipleOf for numbers of that many digits")
            }
            if !isMultiple { return false }
        }
        return true
    }

    private func validates(_ text: String, _ constraints: SchemaConstraints) throws(GrammarError) -> Bool {
        let length = text.unicodeScalars.count
        guard length >= constraints.minLength, length <= constraints.maxLength ?? .max else { return false }
        for automaton in try constraints.textAutomata() where !automaton.accepts(text) { return false }
        return true
    }

    private mutating func validates(
        _ elements: [JSONValue], _ constraints: SchemaConstraints, depth: Int
    ) throws(GrammarError) -> Bool {
        guard elements.count >= constraints.minItems, elements.count <= constraints.maxItems ?? .max else {
            return false
        }
        for (index, element) in elements.enumerated() {
            let parts = constraints.parts(ofItem: index)
            if !parts.isEmpty, try !validates(element, parts, depth: depth + 1) { return false }
        }
        return true
    }

    private mutating func validates(
        _ members: [JSONMember], _ constraints: SchemaConstraints, depth: Int
    ) throws(GrammarError) -> Bool {
        guard members.count >= constraints.minProperties, members.count <= constraints.maxProperties ?? .max,
            constraints.required.allSatisfy({ key in members.contains { $0.key.utf8.elementsEqual(key.utf8) } })
        else { return false }
        for member in members {
            for part in constraints.propertyNames
            where try !validates(.string(member.key), [part], depth: depth + 1) { return false }
            let parts = try constraints.parts(ofProperty: member.key)
            if !parts.isEmpty, try !validates(member.value, parts, depth: depth + 1) { return false }
        }
        return true
    }
}

extension JSONValue {
    var kind: SchemaConstraints.Kind {
        switch self {
        case .null: .null
        case .bool: .boolean
        case .number: .number
        case .string: .string
        case .array: .array
        case .object: .object
        }
    }
}

extension SchemaConstraints {
    /// Returns the automata of patterns and formats.
    func textAutomata() throws(GrammarError) -> [CharacterAutomaton] {
        var automata: [CharacterAutomaton] = []
        for (pattern, path) in patterns { automata.append(try Self.automaton(pattern, path)) }
        for (name, path) in formats {
            guard let automaton = try StringFormats.automaton(name) else {
                throw GrammarError(
                    .unsupported, at: path,
                    "format '\(name.prefix(40))' is not supported; \(StringFormats.names.joined(separator: ", ")) are")
            }
            automata.append(automaton)
        }
        return automata
    }

    static func automaton(_ pattern: String, _ path: String) throws(GrammarError) -> CharacterAutomaton {
        do {
            return try CharacterAutomaton(Pattern(parsing: pattern), search: true)
        } catch {
            throw error.within(path)
        }
    }

    /// Returns the parts that apply to the item at an index.
    func parts(ofItem index: Int) -> [Int] {
        tuples.compactMap { index < $0.prefix.count ? $0.prefix[index] : $0.items }
    }

    /// Returns the parts that apply to the value of a property.
    func parts(ofProperty key: String) throws(GrammarError) -> [Int] {
        var parts: [Int] = []
        for shape in shapes {
            var own = shape.properties.filter { $0.key.utf8.elementsEqual(key.utf8) }.map(\.node)
            for (pattern, path, node) in shape.patterns where try Self.automaton(pattern, path).accepts(key) {
                own.append(node)
            }
            parts += own.isEmpty ? shape.additional.map { [$0] } ?? [] : own
        }
        return parts
    }
}
