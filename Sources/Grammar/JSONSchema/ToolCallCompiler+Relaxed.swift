import JSON

/// Schemas of tools that are not strict, which are followed as far as possible.
extension ToolCallCompiler {
    /// A schema with more parameters is not relaxed, because each of them is tried by itself.
    private static let maxParameters = 256
    /// A parameter with more keywords is not tried without each of them.
    private static let maxKeywords = 16
    /// The keywords of the whole arguments that a relaxed schema keeps.
    private static let keptKeywords = ["type", "$defs", "definitions"]

    /// Returns a schema without what makes a grammar refuse it: a parameter that cannot be enforced loses one keyword, or all
    /// but its type, or all, and a parameter whose name cannot stand in a call is left out. `nil` if the schema describes no
    /// parameters one by one, or is too large to be tried.
    func relaxed(_ schema: JSONValue, _ json: JSONRules, _ rules: RuleSet) throws(GrammarError) -> JSONValue? {
        guard let properties = schema["properties"]?.object, properties.count <= Self.maxParameters else { return nil }
        let kept = (schema.object ?? []).filter { Self.keptKeywords.contains($0.key) }
        func arguments(_ properties: [JSONMember]) -> [JSONMember] {
            kept + [JSONMember("properties", .object(properties))]
        }
        var own: [JSONMember] = []
        for property in properties where markup.allows(name: property.key) {
            for value in Self.relaxations(of: property.value) {
                let member = JSONMember(property.key, value)
                guard try isLegal(.object(arguments([member])), json, rules) else { continue }
                own.append(member)
                break
            }
        }
        let names = Set(own.map { JSONKey($0.key) })
        let required = (schema["required"]?.array ?? []).filter {
            $0.string.map { names.contains(JSONKey($0)) } ?? false
        }
        return .object(arguments(own) + [JSONMember("required", .array(required))])
    }

    /// Returns a parameter's schema and what may stand for it, the most exact first.
    private static func relaxations(of schema: JSONValue) -> [JSONValue] {
        let members = schema.object ?? []
        let type = JSONValue.object(members.filter { $0.key == "type" })
        guard members.count <= maxKeywords else { return [schema, type, .object([])] }
        let shorter = members.filter { $0.key != "type" }.map { left in
            JSONValue.object(members.filter { $0.key != left.key })
        }
        return [schema] + shorter + [type, .object([])]
    }

    /// Returns true if a grammar can enforce the schema.
    ///
    /// - Throws: an error if the schema is too large, or the compilation is not wanted any more.
    private func isLegal(_ schema: JSONValue, _ json: JSONRules, _ rules: RuleSet) throws(GrammarError) -> Bool {
        var scratch = rules
        do throws(GrammarError) {
            _ = try SchemaCompiler.compileParameters(schema, json, self, into: &scratch)
            return true
        } catch {
            guard error.kind == .unsupported || error.kind == .invalid else { throw error }
            return false
        }
    }
}
