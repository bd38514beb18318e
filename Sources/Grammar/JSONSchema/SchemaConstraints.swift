import JSON
import Tokenization

/// What several parts of a schema ask of one value together.
struct SchemaConstraints {
    enum Kind: String, CaseIterable {
        case null, boolean, number, string, array, object
    }

    var kinds = Set(Kind.allCases)
    /// Of numbers, only integers.
    var integersOnly = false
    /// The only values allowed; `nil` for no such list.
    var values: [JSONValue]?
    var lower, upper: NumberAutomata.Bound?
    var multiples: [DecimalNumber] = []

    var minLength = 0
    var maxLength: Int?
    var patterns: [(pattern: String, path: String)] = []
    var formats: [(name: String, path: String)] = []

    var shapes: [ObjectShape] = []
    var required: [String] = []
    var minProperties = 0
    var maxProperties: Int?
    var propertyNames: [Int] = []

    var tuples: [ArrayShape] = []
    var minItems = 0
    var maxItems: Int?

    /// Each asks that one of its parts holds, or exactly one.
    var groups: [Group] = []
    /// Parts that must not hold.
    var negated: [Int] = []
    /// Keywords that cannot be held to for some kinds of values, with the reason.
    var refusals: [(kind: Kind, error: GrammarError)] = []

    struct Group {
        var path: String
        var options: [Int]
        var isExclusive: Bool
    }

    /// The properties of one part; its `additional` holds for those that it does not name.
    struct ObjectShape {
        var properties: [(key: String, node: Int)] = []
        var patterns: [(pattern: String, path: String, node: Int)] = []
        var additional: Int?
    }

    struct ArrayShape {
        var prefix: [Int] = []
        var items: Int?
    }

    /// Whether any value at all is allowed, groups aside.
    var isUnconstrained: Bool {
        kinds.count == Kind.allCases.count && !integersOnly && values == nil && lower == nil && upper == nil
            && multiples.isEmpty && minLength == 0 && maxLength == nil && patterns.isEmpty && formats.isEmpty
            && shapes.isEmpty && required.isEmpty && minProperties == 0 && maxProperties == nil
            && propertyNames.isEmpty && tuples.isEmpty && minItems == 0 && maxItems == nil && negated.isEmpty
            && refusals.isEmpty
    }

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
