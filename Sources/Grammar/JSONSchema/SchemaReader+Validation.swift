import JSON
import Tokenization

/// Checks given values against parts of a schema, because enumerations are filtered by the keywords beside them.
extension SchemaReader {
    /// Checking values may take this many steps, which bounds the time of long lists.
    private static let maxChecks = 300_000

    /// Returns those of the values that the parts list which satisfy everything else that the parts require.
    ///
    /// - Returns: `nil` if the parts list no values.
    /// - Throws: if a keyword that matters for a value is not supported.
    mutating func listedValues(
        _ constraints: SchemaConstraints, of parts: [Int]
    ) throws(GrammarError) -> [JSONValue]? {
        guard let values = constraints.values else { return nil }
        var found: [JSONValue] = []
        for value in values.all where try validates(value, constraints, parts, isListed: true, depth: 0) {
            found.append(value)
        }
        return found
    }

    /// Returns true if the value satisfies all parts.
    ///
    /// - Throws: if a keyword that matters for the value is not supported.
    mutating func validates(_ value: JSONValue, _ parts: [Int], depth: Int = 0) throws(GrammarError) -> Bool {
        guard depth <= JSONLimits().maxDepth * 2 else {
            throw GrammarError(.tooLarge, at: document.nodes[parts[0]].path, "the schema refers to itself too often")
        }
        let constraints: SchemaConstraints
        if let known = checked[parts] {
            constraints = known
        } else {
            constraints = try self.constraints(of: parts)
            checked[parts] = constraints
        }
        return try validates(value, constraints, parts, isListed: false, depth: depth)
    }

    /// - Parameter isListed: whether the value is known to be one of those that the parts list.
    private mutating func validates(
        _ value: JSONValue, _ constraints: SchemaConstraints, _ parts: [Int], isListed: Bool, depth: Int
    ) throws(GrammarError) -> Bool {
        checks += 1
        guard checks <= Self.maxChecks else {
            throw GrammarError(
                .tooLarge, at: document.nodes[parts[0]].path, "checking the listed values takes too many steps")
        }
        try GrammarWork.check(checks, every: 256)
        guard constraints.kinds.contains(value.kind) else { return false }
        for refusal in constraints.refusals where refusal.kind == value.kind { throw refusal.error }
        if !isListed, let values = constraints.values, !values.contains(value) { return false }
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
        guard members.count >= constraints.minProperties, members.count <= constraints.maxProperties ?? .max else {
            return false
        }
        let keys = Set(members.map { JSONKey($0.key) })
        guard constraints.required.names.allSatisfy({ keys.contains(JSONKey($0)) }) else { return false }
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
        for pattern in patterns + formats { automata.append(try pattern.automaton) }
        return automata
    }

    /// Returns the parts that apply to the item at an index.
    func parts(ofItem index: Int) -> [Int] {
        tuples.compactMap { index < $0.prefix.count ? $0.prefix[index] : $0.items }
    }

    /// Returns the parts that apply to the value of a property.
    func parts(ofProperty key: String) throws(GrammarError) -> [Int] {
        var parts: [Int] = []
        for shape in shapes {
            var own = shape.nodes(of: key)
            if !shape.patterns.isEmpty { try GrammarWork.spend(shape.patterns.count * (1 + key.utf8.count)) }
            for (pattern, node) in shape.patterns where try pattern.automaton.accepts(key) { own.append(node) }
            parts += own.isEmpty ? shape.additional.map { [$0] } ?? [] : own
        }
        return parts
    }
}
