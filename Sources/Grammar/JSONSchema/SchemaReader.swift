import JSON
import Tokenization

/// Reads the keywords of schema parts.
struct SchemaReader {
    var document: SchemaDocument
    /// The number of parts read so far. Its limit bounds the time for schemas whose combinations multiply.
    private var reads = 0
    /// The number of entries of lists that were read. Many parts may refer to one with a long list.
    private var listed = 0
    /// The properties of parts and the names that they require, by the part. They are read once, and their memory is
    /// shared: many parts may refer to one with thousands of properties.
    private var shapes: [Int: SchemaConstraints.ObjectShape] = [:]
    private var required: [Int: SchemaConstraints.NameList] = [:]

    /// The patterns and formats by their text or name, each compiled once; an error names the first place of one.
    private var patterns: [JSONKey: TextPattern] = [:]
    /// The lists of `enum` and `const` by their path.
    private var lists: [JSONKey: ListedValues] = [:]
    /// The requirements of sets of parts, against which values were checked.
    var checked: [[Int]: SchemaConstraints] = [:]
    /// The number of values that were checked, parts of values included.
    var checks = 0

    private static let maxReads = 100_000
    /// Options are read again for each pair of them that `oneOf` compares, so that useful schemas count millions.
    private static let maxListed = 4_000_000

    init(_ root: JSONValue) throws(GrammarError) { document = try SchemaDocument(root) }

    /// Returns everything that the parts, and those that they include by `$ref` and `allOf`, require of a value.
    mutating func constraints(of parts: [Int]) throws(GrammarError) -> SchemaConstraints {
        var constraints = SchemaConstraints()
        var (seen, pending) = (Set(parts), Array(parts.reversed()))
        while let part = pending.popLast() {
            reads += 1
            guard reads <= Self.maxReads else {
                throw GrammarError(.tooLarge, "the schema's alternatives have too many combinations")
            }
            try GrammarWork.check(reads, every: 64)
            let node = document.nodes[part]
            guard case .object(let members) = node.value else {
                if node.value.bool == false { constraints.kinds = [] }
                continue
            }
            var included: [Int] = []
            var shape: SchemaConstraints.ObjectShape?
            var tuple = SchemaConstraints.ArrayShape()
            for member in members {
                let path = SchemaDocument.path(node.path, member.key)
                switch member.key {
                case "$ref":
                    included.append(try document.resolve(try string(member.value, path), at: path))
                case "allOf": included += try subschemas(member.value, path)
                case "properties", "patternProperties", "additionalProperties":
                    if shape == nil { shape = try self.shape(of: part) }
                case "required": try require(try required(of: part, member.value, path), in: &constraints)
                case "prefixItems": tuple.prefix = try subschemas(member.value, path)
                case "items":
                    // Up to draft 7 a list meant what is `prefixItems` now.
                    if member.value.array != nil {
                        tuple.prefix = try subschemas(member.value, path)
                    } else {
                        tuple.items = try document.number(member.value, path)
                    }
                case "additionalItems" where node.value["items"]?.array != nil:
                    tuple.items = try document.number(member.value, path)
                default: try read(member, of: node, path, into: &constraints)
                }
            }
            if let shape, !shape.keys.isEmpty || !shape.patterns.isEmpty || shape.additional != nil {
                constraints.shapes.append(shape)
            }
            if !tuple.prefix.isEmpty || tuple.items != nil { constraints.tuples.append(tuple) }
            for next in included.reversed() where seen.insert(next).inserted { pending.append(next) }
        }
        return constraints
    }

    private mutating func read(
        _ member: JSONMember, of node: SchemaDocument.Node, _ path: String, into constraints: inout SchemaConstraints
    ) throws(GrammarError) {
        let value = member.value
        switch member.key {
        case "type": try readType(value, path, into: &constraints)
        case "enum":
            guard let values = value.array else { throw invalid(path, "must be a list") }
            constraints.list(try list(values, path))
        case "const": constraints.list(try list([value], path))
        case "minimum":
            constraints.raise(try bound(value, path, isExclusive: node.value["exclusiveMinimum"]?.bool ?? false))
        case "maximum":
            constraints.lower(try bound(value, path, isExclusive: node.value["exclusiveMaximum"]?.bool ?? false))
        case "exclusiveMinimum" where value.bool == nil: constraints.raise(try bound(value, path, isExclusive: true))
        case "exclusiveMaximum" where value.bool == nil: constraints.lower(try bound(value, path, isExclusive: true))
        case "multipleOf":
            let step = try bound(value, path, isExclusive: false).value
            guard step > .zero else { throw invalid(path, "must be above 0") }
            constraints.multiples.append(step)
        case "minLength": constraints.minLength = max(constraints.minLength, try count(value, path))
        case "maxLength": constraints.maxLength = min(constraints.maxLength ?? .max, try count(value, path))
        case "minItems": constraints.minItems = max(constraints.minItems, try count(value, path))
        case "maxItems": constraints.maxItems = min(constraints.maxItems ?? .max, try count(value, path))
        case "minProperties": constraints.minProperties = max(constraints.minProperties, try count(value, path))
        case "maxProperties": constraints.maxProperties = min(constraints.maxProperties ?? .max, try count(value, path))
        case "pattern": constraints.patterns.append(pattern(try string(value, path), path))
        case "format":
            let name = try string(value, path)
            if !StringFormats.annotations.contains(name) { constraints.formats.append(format(name, path)) }
        case "propertyNames": constraints.propertyNames.append(try document.number(value, path))
        case "anyOf", "oneOf":
            constraints.groups.append(
                SchemaConstraints.Group(
                    path: path, options: try subschemas(value, path), isExclusive: member.key == "oneOf"))
        case "not": constraints.negated.append(try document.number(value, path))
        case "dependentRequired", "dependentSchemas", "dependencies":
            try readDependencies(value, path, into: &constraints)
        default: try refuse(member, of: node, path, into: &constraints)
        }
    }

    /// Returns what a part says of the properties of objects.
    private mutating func shape(of part: Int) throws(GrammarError) -> SchemaConstraints.ObjectShape {
        if let known = shapes[part] { return known }
        let node = document.nodes[part]
        var shape = SchemaConstraints.ObjectShape()
        for member in node.value.object ?? [] {
            let path = SchemaDocument.path(node.path, member.key)
            switch member.key {
            case "properties":
                for property in try object(member.value, path) {
                    try countListed()
                    let place = SchemaDocument.path(path, property.key)
                    shape.add(property.key, try document.number(property.value, place))
                }
            case "patternProperties":
                for property in try object(member.value, path) {
                    try countListed()
                    let place = SchemaDocument.path(path, property.key)
                    shape.patterns.append((pattern(property.key, place), try document.number(property.value, place)))
                }
            case "additionalProperties": shape.additional = try document.number(member.value, path)
            default: break
            }
        }
        shapes[part] = shape
        return shape
    }

    /// Returns the names that a part requires.
    ///
    /// - Parameters:
    ///   - value: the value of the part's `required`.
    ///   - path: the path of that value.
    private mutating func required(
        of part: Int, _ value: JSONValue, _ path: String
    ) throws(GrammarError) -> SchemaConstraints.NameList {
        if let known = required[part] { return known }
        var names = SchemaConstraints.NameList()
        for (index, name) in try array(value, path).enumerated() {
            try countListed()
            guard let name = name.string else { throw invalid("\(path)/\(index)", "must be a string") }
            names.insert(name)
        }
        required[part] = names
        return names
    }

    /// Adds the names that a part requires to those that others require.
    private mutating func require(
        _ names: SchemaConstraints.NameList, in constraints: inout SchemaConstraints
    ) throws(GrammarError) {
        guard !constraints.required.isEmpty else {
            constraints.required = names
            return
        }
        for name in names.names {
            try countListed()
            constraints.required.insert(name)
        }
    }

    /// Reads a dependency, which is satisfied if the property is missing or if what depends on it is present.
    private mutating func readDependencies(
        _ value: JSONValue, _ path: String, into constraints: inout SchemaConstraints
    ) throws(GrammarError) {
        for member in try object(value, path) {
            try countListed()
            let place = SchemaDocument.path(path, member.key)
            let absent = JSONValue.object([
                JSONMember("properties", .object([JSONMember(member.key, .bool(false))]))
            ])
            let isThere = JSONValue.object([JSONMember("required", .array([.string(member.key)]))])
            let dependent = member.value.array.map { JSONValue.object([JSONMember("required", .array($0))]) }
            // No JSON pointer of the schema can equal these paths.
            let both = JSONValue.object([JSONMember("allOf", .array([isThere, dependent ?? member.value]))])
            let options = [
                try document.number(absent, place + " (absent)"), try document.number(both, place + " (present)"),
            ]
            constraints.groups.append(SchemaConstraints.Group(path: place, options: options, isExclusive: false))
        }
    }

    /// Refuses keywords that no automaton can enforce, but only for values of their kind.
    private func refuse(
        _ member: JSONMember, of node: SchemaDocument.Node, _ path: String, into constraints: inout SchemaConstraints
    ) throws(GrammarError) {
        func refuse(_ kind: SchemaConstraints.Kind, _ reason: String) {
            constraints.refusals.append(
                (kind, GrammarError(.unsupported, at: path, "\(member.key) is not supported: \(reason)")))
        }
        switch member.key {
        case "uniqueItems":
            if member.value.bool == true {
                refuse(.array, "a grammar cannot compare items; use maxItems 1 or check it afterwards")
            }
        case "contains": refuse(.array, "a grammar cannot count matching items; use prefixItems or items")
        case "unevaluatedItems": refuse(.array, "use items")
        case "unevaluatedProperties": refuse(.object, "use additionalProperties")
        case "if":
            if node.value["then"] != nil || node.value["else"] != nil {
                throw GrammarError(
                    .unsupported, at: path, "if is not supported; use anyOf with a constant in each option")
            }
        case "$dynamicRef", "$recursiveRef":
            throw GrammarError(.unsupported, at: path, "\(member.key) is not supported; use $ref")
        default: break
        }
    }

    private func readType(
        _ value: JSONValue, _ path: String, into constraints: inout SchemaConstraints
    ) throws(GrammarError) {
        var kinds: Set<SchemaConstraints.Kind> = []
        var (hasInteger, hasNumber) = (false, false)
        for name in value.array ?? [value] {
            switch name.string {
            case "integer": hasInteger = true
            case "number": hasNumber = true
            case .some(let name):
                guard let kind = SchemaConstraints.Kind(rawValue: name) else {
                    throw invalid(path, "'\(name)' is no type")
                }
                kinds.insert(kind)
            case nil: throw invalid(path, "must be a string or a list of strings")
            }
        }
        if hasInteger || hasNumber { kinds.insert(.number) }
        constraints.kinds.formIntersection(kinds)
        if hasInteger, !hasNumber { constraints.integersOnly = true }
    }

    private mutating func list(_ values: [JSONValue], _ path: String) throws(GrammarError) -> ListedValues {
        if let known = lists[JSONKey(path)] { return known }
        let list = try ListedValues(values)
        lists[JSONKey(path)] = list
        return list
    }

    private mutating func pattern(_ text: String, _ path: String) -> TextPattern {
        known("pattern " + text) { TextPattern(pattern: text, at: path) }
    }

    private mutating func format(_ name: String, _ path: String) -> TextPattern {
        known("format " + name) { TextPattern(format: name, at: path) }
    }

    private mutating func known(_ name: String, _ make: () -> TextPattern) -> TextPattern {
        if let known = patterns[JSONKey(name)] { return known }
        let pattern = make()
        patterns[JSONKey(name)] = pattern
        return pattern
    }

    // MARK: - Values of keywords

    private mutating func subschemas(_ value: JSONValue, _ path: String) throws(GrammarError) -> [Int] {
        var numbers: [Int] = []
        for (index, element) in try array(value, path).enumerated() {
            try countListed()
            numbers.append(try document.number(element, "\(path)/\(index)"))
        }
        return numbers
    }

    /// Counts an entry of a list that is read, or a required property that is compared.
    mutating func countListed() throws(GrammarError) {
        listed += 1
        guard listed <= Self.maxListed else {
            throw GrammarError(
                .tooLarge,
                "the schema's lists have more than \(Self.maxListed) entries, counted each time that they are read"
            )
        }
        try GrammarWork.check(listed, every: 256)
    }

    private func invalid(_ path: String, _ problem: String) -> GrammarError {
        GrammarError(.invalid, at: path, problem)
    }

    private func string(_ value: JSONValue, _ path: String) throws(GrammarError) -> String {
        guard let text = value.string else { throw invalid(path, "must be a string") }
        return text
    }

    private func array(_ value: JSONValue, _ path: String) throws(GrammarError) -> [JSONValue] {
        guard let elements = value.array else { throw invalid(path, "must be a list") }
        return elements
    }

    private func object(_ value: JSONValue, _ path: String) throws(GrammarError) -> [JSONMember] {
        guard let members = value.object else { throw invalid(path, "must be an object") }
        return members
    }

    private func count(_ value: JSONValue, _ path: String) throws(GrammarError) -> Int {
        guard case .number(let number) = value, let count = number.integer ?? Int(exactly: number.double), count >= 0
        else { throw invalid(path, "must be an integer of 0 or more that fits 64 bits") }
        return count
    }

    private func bound(
        _ value: JSONValue, _ path: String, isExclusive: Bool
    ) throws(GrammarError) -> NumberAutomata.Bound {
        guard case .number(let number) = value else { throw invalid(path, "must be a number") }
        guard let decimal = DecimalNumber(number) else {
            throw GrammarError(.tooLarge, at: path, "the number has too many digits")
        }
        return NumberAutomata.Bound(value: decimal, isExclusive: isExclusive)
    }
}
