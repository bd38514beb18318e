import JSON
import Tokenization

/// Treats `oneOf` as a choice, which requires that no value can satisfy two options.
extension SchemaCompiler {
    private static let maxDepth = 4

    mutating func requireDisjoint(_ group: SchemaConstraints.Group, beside parts: [Int]) throws(GrammarError) {
        for (index, first) in group.options.enumerated() {
            for second in group.options[..<index] {
                guard try !areDisjoint(parts + [first], parts + [second], group.path, depth: 0) else { continue }
                throw GrammarError(
                    .unsupported, at: group.path,
                    "oneOf is supported where its options visibly exclude each other, by type or by a required property "
                        + "with different constants; use anyOf")
            }
        }
    }

    private mutating func areDisjoint(
        _ first: [Int], _ second: [Int], _ path: String, depth: Int
    ) throws(GrammarError) -> Bool {
        guard depth < Self.maxDepth else { return false }
        for left in try options(of: first, path) {
            for right in try options(of: second, path) {
                guard try areDisjoint(left, right, first, second, path, depth: depth) else { return false }
            }
        }
        return true
    }

    /// Expands the parts' options, except in groups whose options are being compared, which would recurse without end.
    private mutating func options(of parts: [Int], _ path: String) throws(GrammarError) -> [SchemaConstraints] {
        var found: [SchemaConstraints] = []
        var pending = [(parts: parts, done: Set([path]))]
        while let (parts, done) = pending.popLast(), found.count <= 64 {
            let constraints = try reader.constraints(of: parts)
            guard let group = constraints.groups.first(where: { !done.contains($0.path) }) else {
                found.append(constraints)
                continue
            }
            pending += group.options.map { (parts + [$0], done.union([group.path])) }
        }
        // With too many options some remain unexpanded, and nothing is known.
        return pending.isEmpty ? found : [SchemaConstraints()]
    }

    private mutating func areDisjoint(
        _ left: SchemaConstraints, _ right: SchemaConstraints, _ leftParts: [Int], _ rightParts: [Int], _ path: String,
        depth: Int
    ) throws(GrammarError) -> Bool {
        for (values, parts) in [(left.values, rightParts), (right.values, leftParts)] {
            guard let values else { continue }
            var isExcluded = true
            for value in values.all where isExcluded { isExcluded = try !reader.validates(value, parts) }
            if isExcluded { return true }
        }
        for kind in left.kinds.intersection(right.kinds) {
            switch kind {
            case .null, .boolean: return false
            case .number: guard areNumbersDisjoint(left, right) else { return false }
            case .string:
                var automata = try left.textAutomata() + right.textAutomata()
                let (least, most) = (
                    max(left.minLength, right.minLength), min(left.maxLength ?? .max, right.maxLength ?? .max)
                )
                if least > most { continue }
                guard var common = automata.popLast() else { return false }
                for other in automata { common = try common.intersection(other) }
                guard common.isEmpty else { return false }
            case .array:
                guard left.minItems > right.maxItems ?? .max || right.minItems > left.maxItems ?? .max else {
                    return false
                }
            case .object: guard try areObjectsDisjoint(left, right, path, depth: depth) else { return false }
            }
        }
        return true
    }

    private func areNumbersDisjoint(_ left: SchemaConstraints, _ right: SchemaConstraints) -> Bool {
        func ends(_ upper: NumberAutomata.Bound?, before lower: NumberAutomata.Bound?) -> Bool {
            guard let upper, let lower else { return false }
            return upper.value < lower.value || (upper.value == lower.value && (upper.isExclusive || lower.isExclusive))
        }
        return ends(left.upper, before: right.lower) || ends(right.upper, before: left.lower)
    }

    private mutating func areObjectsDisjoint(
        _ left: SchemaConstraints, _ right: SchemaConstraints, _ path: String, depth: Int
    ) throws(GrammarError) -> Bool {
        for (required, compared) in [(left.required, SchemaConstraints.NameList()), (right.required, left.required)] {
            for key in required.names where !compared.contains(key) {
                try reader.countListed()
                let (mine, theirs) = (try left.parts(ofProperty: key), try right.parts(ofProperty: key))
                let isFalse = (mine + theirs).contains { reader.document.nodes[$0].value.bool == false }
                if isFalse { return true }
                let isRequiredInBoth = left.required.contains(key) && right.required.contains(key)
                guard isRequiredInBoth, !mine.isEmpty, !theirs.isEmpty else { continue }
                if try areDisjoint(mine, theirs, path, depth: depth + 1) { return true }
            }
        }
        return left.minProperties > right.maxProperties ?? .max || right.minProperties > left.maxProperties ?? .max
    }
}
