import JSON
package import Tokenization

/// Describes the functions that a model may call, in which markup, and whether it must.
package struct ToolCallSource: Sendable, Hashable {
    /// The ways in which models write calls.
    package enum Markup: String, Sendable, Hashable, CaseIterable {
        case deepSeekV32, deepSeekV4, glm

        package init(_ markup: ToolCallMarkup) {
            self =
                switch markup {
                case .deepSeek(.functionCalls, _): .deepSeekV32
                case .deepSeek(.toolCalls, _): .deepSeekV4
                case .glm: .glm
                }
        }

        /// Returns whether the name of a tool or parameter can stand in a call: markup has no escapes.
        package func allows(name: String) -> Bool {
            let forbidden = self == .glm ? "\"<>{} " : "\"<>"
            return !name.isEmpty && name.utf8.count <= 256
                && !name.utf8.contains { $0 < 0x20 || forbidden.utf8.contains($0) }
        }

        /// The texts by which calls begin.
        var openings: [String] {
            switch self {
            case .deepSeekV32: ToolCallMarkup.deepSeek(.functionCalls).openings
            case .deepSeekV4: ToolCallMarkup.deepSeek(.toolCalls).openings
            case .glm: ToolCallMarkup.glm(ToolParameterTypes([])).openings
            }
        }
    }

    package struct Tool: Sendable, Hashable {
        package var name: String
        /// The JSON text of the schema of its arguments; `nil` for any arguments.
        package var parameters: String?
        /// True if arguments must follow the schema, which is refused if it cannot be enforced. Otherwise they
        /// follow it as far as possible.
        package var isStrict: Bool

        package init(name: String, parameters: String?, isStrict: Bool) {
            self.name = name
            self.parameters = parameters
            self.isStrict = isStrict
        }
    }

    package var markup: Markup
    package var tools: [Tool]
    /// True if the text must consist of calls; otherwise it may also be, or begin with, anything else.
    package var isRequired: Bool
    package var allowsSeveral: Bool
    /// The JSON text of the schema of an answer without calls; `nil` for any text. It is not used if calls are
    /// required.
    package var answerSchema: String?

    package init(
        markup: Markup = .deepSeekV32, tools: [Tool], isRequired: Bool, allowsSeveral: Bool,
        answerSchema: String? = nil
    ) {
        self.markup = markup
        self.tools = tools
        self.isRequired = isRequired
        self.allowsSeveral = allowsSeveral
        self.answerSchema = answerSchema
    }
}

/// Translates tools into rules for calls, in the markup of DeepSeek or GLM, with parameters as raw strings or as JSON.
/// Parameters are written in the order of the schema, and only those that it names.
struct ToolCallCompiler {
    let markup: ToolCallSource.Markup

    private static let mark = "｜DSML｜"

    private var isGLM: Bool { markup == .glm }

    /// Returns the rules of a text with calls, and the expression that derives calls alone.
    static func compile(_ source: ToolCallSource) throws(GrammarError) -> (rules: RuleSet, calls: Expression) {
        try ToolCallCompiler(markup: source.markup).compile(source)
    }

    private func compile(_ source: ToolCallSource) throws(GrammarError) -> (rules: RuleSet, calls: Expression) {
        var rules = RuleSet()
        let json = try JSONRules(into: &rules)
        guard !source.tools.isEmpty else { throw GrammarError(.invalid, at: "tools", "there is no tool to call") }
        var invokes: [Expression] = []
        for (index, tool) in source.tools.enumerated() {
            do {
                invokes.append(try invoke(tool, json, &rules))
            } catch {
                throw error.within("tools[\(index)] '\(tool.name.prefix(100))'")
            }
        }
        let invoke = Expression.rule(try rules.add(.choice(invokes)))
        let calls = Expression.rule(try rules.add(calls(invoke, several: source.allowsSeveral)))
        let onlyCalls = Expression.sequence([.repeated(.text("\n\n"), minimum: 0, maximum: 1), calls])
        if source.isRequired {
            rules.define(RuleSet.root, onlyCalls)
        } else if let schema = source.answerSchema {
            let answer = try SchemaCompiler.compile(GrammarSource.schema(schema), json, into: &rules)
            rules.define(RuleSet.root, .choice([answer, onlyCalls]))
        } else {
            let text = try Expression.text(
                without: isGLM ? ["<tool_call>", "</tool_call>"] : ["<\(Self.mark)", "</\(Self.mark)"])
            rules.define(RuleSet.root, .sequence([text, .repeated(calls, minimum: 0, maximum: 1)]))
        }
        return (rules, calls)
    }

    /// Derives one or more invokes, in DeepSeek's markup within their block.
    private func calls(_ invoke: Expression, several: Bool) -> Expression {
        let next = Expression.sequence([isGLM ? .repeated(.text("\n"), minimum: 0, maximum: 1) : .text("\n"), invoke])
        let more = Expression.repeated(next, minimum: 0, maximum: several ? nil : 0)
        if isGLM { return .sequence([invoke, more]) }
        let block: DSMLBlock = markup == .deepSeekV4 ? .toolCalls : .functionCalls
        return .sequence([
            .text("<"), .control(Self.mark), .text("\(block.rawValue)>\n"), invoke, more, .text("\n</"),
            .control(Self.mark), .text("\(block.rawValue)>"),
        ])
    }

    private func invoke(
        _ tool: ToolCallSource.Tool, _ json: JSONRules, _ rules: inout RuleSet
    ) throws(GrammarError) -> Expression {
        try checkName(tool.name)
        let parameters = try parameters(of: tool, json, &rules)
        if isGLM {
            return .sequence([.control("<tool_call>"), .text(tool.name), parameters, .control("</tool_call>")])
        }
        return .sequence([
            .text("<"), .control(Self.mark), .text("invoke name=\"\(tool.name)\">\n"), parameters, .text("\n</"),
            .control(Self.mark), .text("invoke>"),
        ])
    }

    /// Derives the parameters of a call of a tool. If the tool is not strict, they follow its schema as far as possible.
    private func parameters(
        of tool: ToolCallSource.Tool, _ json: JSONRules, _ rules: inout RuleSet
    ) throws(GrammarError) -> Expression {
        guard let text = tool.parameters else { return try anyParameters(json, &rules) }
        var attempt = rules
        do throws(GrammarError) {
            let schema = try GrammarSource.schema(text)
            do throws(GrammarError) {
                let parameters = try SchemaCompiler.compileParameters(schema, json, self, into: &attempt)
                rules = attempt
                return parameters
            } catch {
                guard !tool.isStrict, error.kind != .tooLarge, error.kind != .givenUp,
                    let schema = try relaxed(schema, json, rules)
                else { throw error }
                return try SchemaCompiler.compileParameters(schema, json, self, into: &rules)
            }
        } catch {
            if tool.isStrict || error.kind == .givenUp { throw error }
            return try anyParameters(json, &rules)
        }
    }

    /// Derives parameters of any names and values.
    private func anyParameters(_ json: JSONRules, _ rules: inout RuleSet) throws(GrammarError) -> Expression {
        let name = Expression.automaton(
            try CharacterAutomaton(Pattern(parsing: "[A-Za-z_][A-Za-z0-9_.-]{0,63}"), search: false), .utf8)
        let string = stringParameter(name, .automaton(try rawStrings(of: nil), .utf8))
        let any = Expression.rule(try rules.add(.choice([string, parameter(name, json.value)])))
        let list = Expression.sequence([
            any, .repeated(.sequence([separator, any]), minimum: 0, maximum: nil),
        ])
        return .repeated(list, minimum: 0, maximum: 1)
    }

    /// The text between two parameters.
    var separator: Expression { isGLM ? .empty : .text("\n") }

    func stringParameter(_ name: Expression, _ value: Expression) -> Expression {
        parameter(name, value, isString: true)
    }

    func parameter(_ name: Expression, _ value: Expression, isString: Bool = false) -> Expression {
        if isGLM {
            return .sequence([
                .control("<arg_key>"), name, .control("</arg_key>"), .control("<arg_value>"), value,
                .control("</arg_value>"),
            ])
        }
        return .sequence([
            .text("<"), .control(Self.mark), .text("parameter name=\""), name, .text("\" string=\"\(isString)\">"),
            value, .text("</"), .control(Self.mark), .text("parameter>"),
        ])
    }

    /// Checks that a name can stand in a call.
    func checkName(_ name: String) throws(GrammarError) {
        guard markup.allows(name: name) else {
            throw GrammarError(
                .unsupported, "the name '\(name.prefix(100))' cannot stand in a call; use no quotes and brackets")
        }
    }

    /// Accepts the texts that a raw string may be: those without the end of a tag. GLM's markup does not say what a
    /// string is, so where the schema allows more than strings, a text that could be JSON is none.
    ///
    /// - Parameter kinds: what the schema of the parameter allows; `nil` if it does not say.
    func rawStrings(of kinds: Set<ToolParameterTypes.Kind>?) throws(GrammarError) -> CharacterAutomaton {
        guard isGLM else { return try CharacterAutomaton(.text("</\(Self.mark)"), search: true).complement.trimmed }
        let ends = Pattern.choice([.text("</arg_value>"), .text("</tool_call>")])
        let texts = try CharacterAutomaton(ends, search: true).complement.trimmed
        if kinds == [.string] { return texts }
        let likeJSON = #"[ \t\r\n{\["][\s\S]*|(true|false|null|[-+.0-9eE]+)[ \t\r\n]*"#
        return try texts.intersection(
            CharacterAutomaton(Pattern(parsing: likeJSON), search: false).complement.trimmed)
    }
}

extension Expression {
    /// Derives any text that contains none of some others.
    static func text(without others: [String]) throws(GrammarError) -> Expression {
        let found = try CharacterAutomaton(.choice(others.map { Pattern.text($0) }), search: true)
        return .automaton(found.complement.trimmed, .utf8)
    }
}

extension SchemaCompiler {
    /// Derives the parameters of a call whose arguments satisfy a schema of an object.
    static func compileParameters(
        _ schema: JSONValue, _ json: JSONRules, _ calls: ToolCallCompiler, into rules: inout RuleSet
    ) throws(GrammarError) -> Expression {
        var compiler = try SchemaCompiler(schema, json, rules)
        var options: [Expression] = []
        for (_, constraints) in try compiler.alternatives(of: [0]) where constraints.kinds.contains(.object) {
            if let refusal = constraints.refusals.first(where: { $0.kind == .object }) { throw refusal.error }
            guard constraints.values == nil, constraints.negated.isEmpty else {
                throw GrammarError(
                    .unsupported, at: "#", "enum, const and not are not supported for all arguments together")
            }
            options.append(try compiler.parameters(constraints, schema, calls))
        }
        try compiler.definePending()
        rules = compiler.rules
        return .choice(options)
    }

    private mutating func parameters(
        _ constraints: SchemaConstraints, _ schema: JSONValue, _ calls: ToolCallCompiler
    ) throws(GrammarError) -> Expression {
        let properties = try namedProperties(constraints)
        guard constraints.minProperties <= 1, constraints.maxProperties == nil else {
            throw GrammarError(.unsupported, at: "#", "minProperties and maxProperties are not supported for arguments")
        }
        try countObjectStates(2 * (properties.count + 1))
        // A tool may have thousands of parameters.
        let values = Dictionary(
            (schema["properties"]?.object ?? []).lazy.map { (JSONKey($0.key), $0.value) }, uniquingKeysWith: { $1 })
        var graph = ExpressionGraph()
        // Nodes distinguish whether a parameter precedes: then a line break separates.
        var (none, some) = (ExpressionGraph.start, graph.addNode())
        for (key, parts, isRequired) in properties {
            try calls.checkName(key)
            let kinds = values[JSONKey(key)].flatMap { ToolParameterTypes.kinds($0, in: schema) }
            let parameter = try parameter(key, parts, kinds, calls)
            let (laterNone, laterSome) = (graph.addNode(), graph.addNode())
            graph.add(parameter, from: none, to: laterSome)
            graph.add(.sequence([calls.separator, parameter]), from: some, to: laterSome)
            if !isRequired {
                graph.add(.empty, from: none, to: laterNone)
                graph.add(.empty, from: some, to: laterSome)
            }
            (none, some) = (laterNone, laterSome)
        }
        if constraints.minProperties == 0 { graph.add(.empty, from: none, to: ExpressionGraph.end) }
        graph.add(.empty, from: some, to: ExpressionGraph.end)
        return .graph(graph)
    }

    /// Derives a parameter whose value satisfies the parts: a raw string, or JSON that is no string.
    private mutating func parameter(
        _ key: String, _ parts: [Int], _ kinds: Set<ToolParameterTypes.Kind>?, _ calls: ToolCallCompiler
    ) throws(GrammarError) -> Expression {
        let name = Expression.text(key)
        var options: [Expression] = []
        for (parts, constraints) in try alternatives(of: parts) where constraints.kinds.contains(.string) {
            var raw = try calls.rawStrings(of: kinds)
            if let values = try reader.listedValues(constraints, of: parts) {
                raw = try raw.intersection(CharacterAutomaton(texts: values.compactMap(\.string)))
            } else {
                var constraints = constraints
                let excluded = try exclude(&constraints)
                guard constraints.kinds.contains(.string), constraints.minLength <= constraints.maxLength ?? .max else {
                    continue
                }
                if let automaton = try textAutomaton(constraints, excluding: excluded) {
                    raw = try raw.intersection(automaton)
                } else if constraints.minLength > 0 || constraints.maxLength != nil {
                    raw = try raw.intersection(
                        CharacterAutomaton(lengths: constraints.minLength, constraints.maxLength))
                }
            }
            options.append(calls.stringParameter(name, .automaton(raw, .utf8)))
        }
        let path = "(no string)"
        let noString = try reader.document.number(
            .object([JSONMember("not", .object([JSONMember("type", .string("string"))]))]), path)
        options.append(calls.parameter(name, try rule(for: parts + [noString])))
        return .choice(options)
    }
}
