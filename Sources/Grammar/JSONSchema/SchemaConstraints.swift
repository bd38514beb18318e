import JSON
import Tokenization

/// Holds what several parts of a schema together require of one value.
struct SchemaConstraints {
    enum Kind: String, CaseIterable {
        case null, boolean, number, string, array, object
    }

    var kinds = Set(Kind.allCases)
    /// True if numbers must be integers.
    var integersOnly = false
    /// The only values allowed; it is `nil` if there is no such list.
    var values: ListedValues?
    var lower, upper: NumberAutomata.Bound?
    var multiples: [DecimalNumber] = []

    var minLength = 0
    var maxLength: Int?
    var patterns: [TextPattern] = []
    var formats: [TextPattern] = []

    var shapes: [ObjectShape] = []
    var required = NameList()
    var minProperties = 0
    var maxProperties: Int?
    var propertyNames: [Int] = []

    var tuples: [ArrayShape] = []
    var minItems = 0
    var maxItems: Int?

    /// Groups, each of which requires that one of its parts applies, or exactly one.
    var groups: [Group] = []
    /// The parts that must not apply.
    var negated: [Int] = []
    /// Keywords that cannot be enforced for some kinds of values, with the reason.
    var refusals: [(kind: Kind, error: GrammarError)] = []

    /// Holds names in the order in which they were added, each once. Names are compared by their bytes.
    struct NameList {
        private(set) var names: [String] = []
        private var keys: Set<JSONKey> = []

        var isEmpty: Bool { names.isEmpty }
        var count: Int { names.count }
        var first: String? { names.first }

        func contains(_ name: String) -> Bool { keys.contains(JSONKey(name)) }

        mutating func insert(_ name: String) {
            if keys.insert(JSONKey(name)).inserted { names.append(name) }
        }
    }

    struct Group {
        var path: String
        var options: [Int]
        var isExclusive: Bool
    }

    /// Holds the properties of one part; its `additional` applies to those that it does not name.
    struct ObjectShape {
        /// The names of the properties, in the order of the schema.
        private(set) var keys: [String] = []
        private var nodes: [JSONKey: [Int]] = [:]
        var patterns: [(pattern: TextPattern, node: Int)] = []
        var additional: Int?

        mutating func add(_ key: String, _ node: Int) {
            keys.append(key)
            nodes[JSONKey(key), default: []].append(node)
        }

        /// Returns the parts that the shape gives for a property by its name.
        func nodes(of key: String) -> [Int] { nodes[JSONKey(key)] ?? [] }
    }

    struct ArrayShape {
        var prefix: [Int] = []
        var items: Int?
    }

    /// True if any value is allowed, groups aside.
    var isUnconstrained: Bool {
        kinds.count == Kind.allCases.count && !integersOnly && values == nil && lower == nil && upper == nil
            && multiples.isEmpty && minLength == 0 && maxLength == nil && patterns.isEmpty && formats.isEmpty
            && shapes.isEmpty && required.isEmpty && minProperties == 0 && maxProperties == nil
            && propertyNames.isEmpty && tuples.isEmpty && minItems == 0 && maxItems == nil && negated.isEmpty
            && refusals.isEmpty
    }

    /// Allows only listed values.
    mutating func list(_ list: ListedValues) { values = values?.common(with: list) ?? list }

    mutating func raise(_ bound: NumberAutomata.Bound) {
        guard let old = lower, old.value > bound.value || (old.value == bound.value && old.isExclusive) else {
            lower = bound
            return
        }
    }

    mutating func lower(_ bound: NumberAutomata.Bound) {
        guard let old = upper, old.value < bound.value || (old.value == bound.value && old.isExclusive) else {
            upper = bound
            return
        }
    }
}
