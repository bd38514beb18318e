package import JSON

/// The kinds of values that tools' schemas allow for each parameter.
package struct ToolParameterTypes: Sendable {
    package enum Kind: Sendable {
        case string, number, boolean, null, array, object

        init(of value: JSONValue) {
            self =
                switch value {
                case .null: .null
                case .bool: .boolean
                case .string: .string
                case .array: .array
                case .object: .object
                default: .number
                }
        }

        init?(named name: String) {
            switch name {
            case "string": self = .string
            case "number", "integer": self = .number
            case "boolean": self = .boolean
            case "null": self = .null
            case "array": self = .array
            case "object": self = .object
            default: return nil
            }
        }

        /// Creates the kind of the value with which a JSON text begins.
        init(beginningOf text: [UInt8]) {
            self =
                switch text.first(where: { $0 > 0x20 }) {
                case UInt8(ascii: "{"): .object
                case UInt8(ascii: "["): .array
                case UInt8(ascii: "\""): .string
                case UInt8(ascii: "t"), UInt8(ascii: "f"): .boolean
                case UInt8(ascii: "n"): .null
                default: .number
                }
        }
    }

    /// The parameters of one tool.
    struct Tool: Sendable {
        private var names: Set<JSONKey> = []
        private var kinds: [JSONKey: Set<Kind>] = [:]

        /// Reads the parameters that a schema names; `nil` if it names none.
        ///
        /// - Parameter steps: The number of schemas that may still be read; the kinds of further ones stay unknown.
        fileprivate init?(_ schema: JSONValue, steps: inout Int) {
            let own = schema["$ref"]?.string.flatMap { ToolParameterTypes.target(of: $0, in: schema) } ?? schema
            guard let properties = own["properties"]?.object else { return nil }
            for property in properties {
                let key = JSONKey(property.key)
                names.insert(key)
                kinds[key] = ToolParameterTypes.kinds(property.value, in: schema, steps: &steps)
            }
        }

        func contains(_ parameter: String) -> Bool { names.contains(JSONKey(parameter)) }

        /// Returns the kinds that a parameter may have; `nil` if the schema does not say.
        func kinds(of parameter: String) -> Set<Kind>? { kinds[JSONKey(parameter)] }
    }

    private var tools: [JSONKey: Tool] = [:]

    /// The schemas of one request may have this many parts that are read; a reference counts each time.
    private static let maxSteps = 100_000
    /// The same for a single parameter.
    private static let maxStepsOfParameter = 1000

    package init(_ tools: [ChatTool]) {
        var steps = Self.maxSteps
        for tool in tools {
            self.tools[JSONKey(tool.name)] = tool.function["parameters"].flatMap { Tool($0, steps: &steps) }
        }
    }

    /// Returns the parameters of a tool; `nil` if its schema names none.
    func parameters(of tool: String) -> Tool? { tools[JSONKey(tool)] }

    /// Returns the kinds of values that a schema allows, or more; `nil` if it does not say.
    ///
    /// - Parameter root: The schema to which references point.
    package static func kinds(_ schema: JSONValue, in root: JSONValue) -> Set<Kind>? {
        var steps = maxStepsOfParameter
        return kinds(schema, in: root, steps: &steps)
    }

    private static func kinds(_ schema: JSONValue, in root: JSONValue, steps: inout Int, depth: Int = 0) -> Set<Kind>? {
        guard steps > 0, depth < 32 else { return nil }
        steps -= 1
        var found: Set<Kind>?
        func allow(_ kinds: Set<Kind>?) {
            guard let kinds else { return }
            found = found?.intersection(kinds) ?? kinds
        }
        if let names = schema["type"]?.array ?? schema["type"].map({ [$0] }) {
            let kinds = names.map { $0.string.flatMap(Kind.init(named:)) }
            if !kinds.contains(nil) { allow(Set(kinds.compactMap(\.self))) }
        }
        if schema["nullable"]?.bool == true { found?.insert(.null) }
        if let values = schema["enum"]?.array { allow(Set(values.map(Kind.init(of:)))) }
        if let value = schema["const"] { allow([Kind(of: value)]) }
        if let path = schema["$ref"]?.string, let target = target(of: path, in: root) {
            allow(kinds(target, in: root, steps: &steps, depth: depth + 1))
        }
        for part in schema["allOf"]?.array ?? [] { allow(kinds(part, in: root, steps: &steps, depth: depth + 1)) }
        for options in [schema["anyOf"], schema["oneOf"]].compactMap({ $0?.array }) {
            let each = options.map { kinds($0, in: root, steps: &steps, depth: depth + 1) }
            if !each.contains(nil) { allow(each.reduce(into: []) { $0.formUnion($1 ?? []) }) }
        }
        return found
    }

    /// Returns the part of a schema that a reference within it names by its path; `nil` if there is none.
    private static func target(of reference: String, in root: JSONValue) -> JSONValue? {
        guard reference.utf8.first == UInt8(ascii: "#") else { return nil }
        return reference.dropFirst().split(separator: "/").reduce(root) { part, name in
            part?[String(name).replacing("~1", with: "/").replacing("~0", with: "~")]
        }
    }
}
