import Grammar
import JSON
import Tokenization

/// The form that a request requires of its answer, and the member that requires it.
struct AnswerForm: Sendable {
    var source: GrammarSource
    var field: String

    /// The maximum number of different forms in one request. The engine keeps a few compiled grammars ready, and a
    /// request must not replace those of all others.
    static let maxForms = 16
}

extension AnswerForm {
    /// Creates a form that a request describes.
    ///
    /// - Throws: an error if it is too large, the one that its compilation would throw; so forms that are compared have a
    ///   bounded size.
    init(checking source: GrammarSource, field: String) throws(RequestError) {
        let (bytes, most) = (source.byteCount, GrammarSource.maxBytes)
        guard bytes <= most else {
            throw .invalid(field, "\(field): is refused: \(bytes) bytes; the most is \(most)")
        }
        self.init(source: source, field: field)
    }
}

extension [AnswerForm] {
    /// The first form of each grammar in the forms of one request; no more than `maxForms` and one.
    ///
    /// A member of a request has one form, however many answers must have it, so forms of the same member are not
    /// compared.
    var distinct: [AnswerForm] {
        var known: [AnswerForm] = []
        var fields: Set<String> = []
        for form in self where known.count <= AnswerForm.maxForms {
            guard fields.insert(form.field).inserted else { continue }
            if !known.contains(where: { $0.source.isIdentical(to: form.source) }) { known.append(form) }
        }
        return known
    }
}

extension RequestFields {
    /// Returns the form that the members of OpenAI (`response_format`), SGLang (`regex`, `json_schema`, `ebnf`) and
    /// vLLM (`structured_outputs`, `guided_…`) ask for; `nil` for none.
    ///
    /// - Throws: an error if more than one form is given or one is malformed. The engine checks the grammar itself.
    func answerForm() throws(RequestError) -> AnswerForm? {
        var found = try responseFormat().map { [$0] } ?? []
        found += try forms([
            ("regex", { (value, path) throws(RequestError) in .pattern(try Self.text(value, path)) }),
            ("json_schema", Self.schema),
            ("ebnf", { (value, path) throws(RequestError) in .ebnf(try Self.text(value, path)) }),
            ("guided_json", Self.schema),
            ("guided_regex", { (value, path) throws(RequestError) in .pattern(try Self.text(value, path)) }),
            ("guided_choice", Self.choice),
            ("guided_grammar", { (value, path) throws(RequestError) in .ebnf(try Self.text(value, path)) }),
        ])
        if try bool("guided_json_object") ?? false {
            found.append(AnswerForm(source: .jsonObject, field: path(of: "guided_json_object")))
        }
        if let options = try object("structured_outputs") { found += try options.structuredOutputs() }
        guard found.count <= 1 else {
            throw .invalid(
                found[1].field, "\(found[0].field) and \(found[1].field) are both given; an answer has one form")
        }
        return found.first
    }

    /// Returns the forms that the members of vLLM's `structured_outputs` ask for, at least one.
    private func structuredOutputs() throws(RequestError) -> [AnswerForm] {
        let legal = ["json", "regex", "choice", "grammar", "json_object"]
        try refuseOptions(["structural_tag", "whitespace_pattern"])
        let switches = ["disable_any_whitespace", "disable_additional_properties"]
        try refuseOptions(switches, unless: false)
        let known = legal + switches + ["structural_tag", "whitespace_pattern"]
        if let name = names.first(where: { !known.contains($0) }) {
            let member = self.path(of: String(name.prefix(64)))
            throw .invalid(member, "\(member) is unknown; use one of \(legal.joined(separator: ", "))")
        }
        var found = try forms([
            ("json", Self.schema),
            ("regex", { (value, path) throws(RequestError) in .pattern(try Self.text(value, path)) }),
            ("choice", Self.choice),
            ("grammar", { (value, path) throws(RequestError) in .ebnf(try Self.text(value, path)) }),
        ])
        if try bool("json_object") ?? false {
            found.append(AnswerForm(source: .jsonObject, field: self.path(of: "json_object")))
        }
        guard !found.isEmpty else {
            throw .invalid(
                "structured_outputs",
                "structured_outputs asks for no form; give one of \(legal.joined(separator: ", "))")
        }
        return found
    }

    private typealias Reader = (JSONValue, String) throws(RequestError) -> GrammarSource

    private func forms(_ readers: [(name: String, read: Reader)]) throws(RequestError) -> [AnswerForm] {
        var found: [AnswerForm] = []
        for (name, read) in readers {
            guard let value = value(name) else { continue }
            found.append(try AnswerForm(checking: try read(value, path(of: name)), field: path(of: name)))
        }
        return found
    }

    private func refuseOptions(_ names: [String], unless harmless: Bool? = nil) throws(RequestError) {
        for name in names {
            guard let value = value(name), value.bool != harmless || harmless == nil else { continue }
            throw .invalid(
                path(of: name), "\(path(of: name)) is not supported; use a JSON Schema, a regular expression or EBNF")
        }
    }

    /// Returns the form of `response_format`, whose type is `text`, `json_object` (perhaps with a `schema`) or
    /// `json_schema`.
    private func responseFormat() throws(RequestError) -> AnswerForm? {
        guard let format = try object("response_format") else { return nil }
        return try format.answerForm(describedAt: path(of: "response_format"))
    }

    /// Returns the form that the members of this object describe, as `response_format` of chat completions and
    /// `text.format` of responses do.
    ///
    /// - Parameter field: the name of the object, for errors.
    func answerForm(describedAt field: String) throws(RequestError) -> AnswerForm? {
        let format = self
        guard let type = try format.string("type") else {
            throw .invalid(field, "\(format.path(of: "type")) is missing; it is 'text', 'json_object' or 'json_schema'")
        }
        switch type {
        case "text": return nil
        case "json_object":
            guard let schema = format.value("schema") else { return AnswerForm(source: .jsonObject, field: field) }
            return try AnswerForm(checking: try Self.schema(schema, format.path(of: "schema")), field: field)
        case "json_schema":
            // Some clients omit the inner object.
            let inner = try format.object("json_schema") ?? format
            guard let schema = inner.value("schema") else {
                // Responses have no inner object, and their schema beside the type.
                let isOuter = inner.names == format.names && field == "response_format"
                let missing = isOuter ? format.path(of: "json_schema") : inner.path(of: "schema")
                throw .invalid(field, "\(missing) is missing; it has the schema of the answer")
            }
            return try AnswerForm(checking: try Self.schema(schema, inner.path(of: "schema")), field: field)
        default:
            throw .invalid(field, "\(field) '\(type.prefix(40))' is not supported; use 'json_schema' or 'json_object'")
        }
    }

    private static func text(_ value: JSONValue, _ path: String) throws(RequestError) -> String {
        guard let text = value.string else { throw .invalid(path, "\(path) must be a string, not \(value.kindName)") }
        return text
    }

    /// Returns the grammar of a schema, which is given as JSON or as its text.
    static func schema(_ value: JSONValue, _ path: String) throws(RequestError) -> GrammarSource {
        switch value {
        case .string(let text): .jsonSchema(text)
        case .object, .bool: .jsonSchema(value.pythonText)
        default: throw .invalid(path, "\(path) must be a JSON Schema, not \(value.kindName)")
        }
    }

    private static func choice(_ value: JSONValue, _ path: String) throws(RequestError) -> GrammarSource {
        guard let elements = value.array, !elements.isEmpty, elements.allSatisfy({ $0.string != nil }) else {
            throw .invalid(path, "\(path) must be a list of strings, at least one")
        }
        return .choice(elements.compactMap(\.string))
    }
}

// MARK: - Tools

extension Conversation {
    /// Returns the form that `tool_choice` and tools that are `strict` require of an answer.
    ///
    /// - Parameters:
    ///   - markup: the markup in which the model calls tools.
    ///   - form: the form of an answer without tool calls; `nil` for any.
    /// - Returns: the form of the whole answer, without reasoning; `nil` for any.
    func form(in markup: ToolCallSource.Markup, besides form: AnswerForm?) throws(RequestError) -> AnswerForm? {
        var offered = offeredTools.map(Self.callable)
        var source = ToolCallSource(
            markup: markup, tools: [], isRequired: false, allowsSeveral: allowsParallelCalls)
        switch toolChoice {
        case .required: source.isRequired = true
        case .named(let name):
            offered = offered.filter { JSONKey($0.name) == JSONKey(name) }
            guard !offered.isEmpty else {
                throw .invalid("tool_choice", "tool_choice: there is no tool '\(name.prefix(100))' among tools")
            }
            (source.isRequired, source.allowsSeveral) = (true, false)
        case .auto, .none:
            guard offered.contains(where: \.isStrict) || (form != nil && !offered.isEmpty) else { return form }
        }
        guard !offered.isEmpty else {
            throw .invalid("tool_choice", "tool_choice is 'required', and there are no tools")
        }
        source.tools = offered
        if !source.isRequired, let form {
            switch form.source {
            case .jsonObject: source.answerSchema = #"{"type": "object"}"#
            case .jsonSchema(let text): source.answerSchema = text
            default: throw .invalid(form.field, "\(form.field) is not supported together with tools")
            }
        }
        let field = source.isRequired ? "tool_choice" : "tools"
        return AnswerForm(source: .toolCalls(source), field: source.answerSchema == nil ? field : form?.field ?? field)
    }

    /// Refuses tools that no call could tell apart or name.
    func checkToolNames(in markup: ToolCallSource.Markup) throws(RequestError) {
        var seen: Set<JSONKey> = []
        for tool in offeredTools {
            let name = tool.name.prefix(100)
            guard markup.allows(name: tool.name) else {
                throw .invalid(
                    "tools", "tools: the name '\(name)' cannot stand in a call; use letters, digits, '_' and '-'")
            }
            guard seen.insert(JSONKey(tool.name)).inserted else {
                throw .invalid("tools", "tools: two tools have the name '\(name)'; give each its own")
            }
        }
    }

    private static func callable(_ tool: ChatTool) -> ToolCallSource.Tool {
        let parameters = tool.function["parameters"].flatMap { $0.isNull ? nil : $0.pythonText }
        return ToolCallSource.Tool(
            name: tool.name, parameters: parameters, isStrict: tool.function["strict"]?.bool ?? false)
    }
}
