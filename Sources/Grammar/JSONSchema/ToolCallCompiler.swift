import JSON
import Tokenization

/// Describes the functions that a model may call in the markup of DeepSeek-V3.2, and whether it must.
package struct ToolCallSource: Sendable, Hashable {
    package struct Tool: Sendable, Hashable {
        package var name: String
        /// The JSON text of the schema of its arguments; `nil` for any arguments.
        package var parameters: String?
        /// Whether arguments must follow the schema, which is refused if it cannot be enforced. Otherwise they
        /// follow it as far as possible.
        package var isStrict: Bool

        package init(name: String, parameters: String?, isStrict: Bool) {
            self.name = name
            self.parameters = parameters
            self.isStrict = isStrict
        }
    }

    package var tools: [Tool]
    /// Whether the text must consist of calls; otherwise it may also be, or begin with, anything else.
    package var isRequired: Bool
    package var allowsSeveral: Bool
    /// The JSON text of the schema of an answer without calls; `nil` for any text. It is not used if calls are
    /// required.
    package var answerSchema: String?

    package init(tools: [Tool], isRequired: Bool, allowsSeveral: Bool, answerSchema: String? = nil) {
        self.tools = tools
        self.isRequired = isRequired
        self.allowsSeveral = allowsSeveral
        self.answerSchema = answerSchema
    }
}

/// Translates tools into rules for calls: a block of invokes, with parameters as raw strings or as JSON. Parameters are
/// written in the order of the schema, and only those that it names.
struct ToolCallCompiler {
    private static let mark = "｜DSML｜"
    private static let block = "function_calls"

    static func rules(of source: ToolCallSource) throws(GrammarError) -> RuleSet {
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
        let more = Expression.repeated(
            .sequence([.text("\n"), invoke]), minimum: 0, maximum: source.allowsSeveral ? nil : 0)
        let calls = Expression.sequence([
            .text("<"), .control(mark), .text("\(block)>\n"), invoke, more, .text("\n</"), .control(mark),
            .text("\(block)>"),
        ])
        let onlyCalls = Expression.sequence([.repeated(.text("\n\n"), minimum: 0, maximum: 1), calls])
        if source.isRequired {
            rules.define(RuleSet.root, onlyCalls)
        } else if let schema = source.answerSchema {
            let answer = try SchemaCompiler.compile(GrammarSource.schema(schema), json, into: &rules)
            rules.define(RuleSet.root, .choice([answer, onlyCalls]))
        } else {
            let text = try Expression.text(without: ["<\(mark)", "</\(mark)"])
            rules.define(RuleSet.root, .sequence([text, .repeated(calls, minimum: 0, maximum: 1)]))
        }
        return rules
    }

    private static func invoke(
        _ tool: ToolCallSource.Tool, _ json: JSONRules, _ rules: inout RuleSet
    ) throws(GrammarError) -> Expression {
        try checkAttribute(tool.name)
        var parameters = try anyParameters(json, &rules)
        if let text = tool.parameters {
            var attempt = rules
            do {
                parameters = try SchemaCompiler.compileParameters(GrammarSource.schema(text), json, into: &attempt)
                rules = attempt
            } catch {
                if tool.isStrict { throw error }
            }
        }
        return .sequence([
            .text("<"), .control(mark), .text("invoke name=\"\(tool.name)\">\n"), parameters, .text("\n</"),
            .control(mark), .text("invoke>"),
        ])
    }

    /// Derives parameters of any names and values.
    private static func anyParameters(_ json: JSONRules, _ rules: inout RuleSet) throws(GrammarError) -> Expression {
        let name = Expression.automaton(
            try CharacterAutomaton(Pattern(parsing: "[A-Za-z_][A-Za-z0-9_.-]{0,63}"), search: false), .utf8)
        let options = [try stringParameter(name, Expression.text(without: ["</\(mark)"])), parameter(name, json.value)]
        let any = Expression.rule(try rules.add(.choice(options)))
        let list = Expression.sequence([
            any, .repeated(.sequence([.text("\n"), any]), minimum: 0, maximum: nil),
        ])
        return .repeated(list, minimum: 0, maximum: 1)
    }

    static func stringParameter(_ name: Expression, _ value: Expression) -> Expression {
        parameter(name, value, isString: true)
    }

    static func parameter(_ name: Expression, _ value: Expression, isString: Bool = false) -> Expression {
        .sequence([
            .text("<"), .control(mark), .text("parameter name=\""), name, .text("\" string=\"\(isString)\">"), value,
            .text("</"), .control(mark), .text("parameter>"),
        ])
    }

    /// Checks that a name can be an attribute, because attributes have no escapes.
    static func checkAttribute(_ name: String) throws(GrammarError) {
        let isLegal =
            !name.isEmpty && name.utf8.count <= 256 && !name.utf8.contains { $0 < 0x20 || "\"<>".utf8.contains($0) }
        guard isLegal else {
            throw GrammarError(
                .unsupported, "the name '\(name.prefix(100))' cannot stand in a call; use no quotes and brackets")
        }
    }

    /// Accepts the texts that a raw string may be: those without the end of a tag.
    static func rawStrings() throws(GrammarError) -> CharacterAutomaton {
        try CharacterAutomaton(.text("</\(mark)"), search: true).complement.trimmed
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
        _ schema: JSONValue, _ json: JSONRules, into rules: inout RuleSet
    ) throws(GrammarError) -> Expression {
        var compiler = try SchemaCompiler(schema, json, rules)
        var options: [Expression] = []
        for (_, constraints) in try compiler.alternatives(of: [0]) where constraints.kinds.contains(.object) {
            if let refusal = constraints.refusals.first(where: { $0.kind == .object }) { throw refusal.error }
            guard constraints.values == nil, constraints.negated.isEmpty else {
                throw GrammarError(
                    .unsupported, at: "#", "enum, const and not are not supported for all arguments together")
            }
            options.append(try compiler.parameters(constraints))
        }
        try compiler.definePending()
        rules = compiler.rules
        return .choice(options)
    }

    private mutating func parameters(_ constraints: SchemaConstraints) throws(GrammarError) -> Expression {
        let properties = try namedProperties(constraints)
        guard constraints.minProperties <= 1, constraints.maxProperties == nil else {
            throw GrammarError(.unsupported, at: "#", "minProperties and maxProperties are not supported for arguments")
        }
        var graph = ExpressionGraph()
        // Nodes distinguish whether a parameter precedes: then a line break separates.
        var (none, some) = (ExpressionGraph.start, graph.addNode())
        for (key, parts, isRequired) in properties {
            try ToolCallCompiler.checkAttribute(key)
            let parameter = try parameter(key, parts)
            let (laterNone, laterSome) = (graph.addNode(), graph.addNode())
            graph.add(parameter, from: none, to: laterSome)
            graph.add(.sequence([.text("\n"), parameter]), from: some, to: laterSome)
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
    private mutating func parameter(_ key: String, _ parts: [Int]) throws(GrammarError) -> Expression {
        let name = Expression.text(key)
        var options: [Expression] = []
        for (parts, constraints) in try alternatives(of: parts) where constraints.kinds.contains(.string) {
            var raw = try ToolCallCompiler.rawStrings()
            if let values = constraints.values {
                var texts: [String] = []
                for value in values where try reader.validates(value, parts) { value.string.map { texts.append($0) } }
                raw = try raw.intersection(CharacterAutomaton(texts: texts))
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
            options.append(ToolCallCompiler.stringParameter(name, .automaton(raw, .utf8)))
        }
        let path = "(no string)"
        let noString = try reader.document.number(
            .object([JSONMember("not", .object([JSONMember("type", .string("string"))]))]), path)
        options.append(ToolCallCompiler.parameter(name, try rule(for: parts + [noString])))
        return .choice(options)
    }
}
