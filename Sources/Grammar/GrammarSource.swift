import JSON
import Tokenization

/// What a text is to follow, as a request says it. It is small, and every process compiles it to the same grammar.
package indirect enum GrammarSource: Sendable, Hashable {
    /// Any JSON object.
    case jsonObject
    /// The JSON text of a schema (draft 2020-12).
    case jsonSchema(String)
    /// A regular expression that matches the whole text.
    case pattern(String)
    /// One of several texts.
    case choice([String])
    /// A grammar in the notation of XGrammar and llama.cpp.
    case ebnf(String)
    /// Calls of tools.
    case toolCalls(ToolCallSource)
    /// Any text up to `</think>`, and then what another source says.
    case afterReasoning(GrammarSource)

    /// Longer sources are refused.
    package static let maxBytes = 1 << 20
}

extension CompiledGrammar {
    /// - Throws: for sources that are malformed, that ask for something unsupported, or that are too large.
    package convenience init(_ source: GrammarSource, _ vocabulary: GrammarVocabulary) throws(GrammarError) {
        try self.init(try source.rules(), vocabulary)
    }
}

extension GrammarSource {
    func rules() throws(GrammarError) -> RuleSet {
        var rules = RuleSet()
        switch self {
        case .jsonObject:
            rules.define(RuleSet.root, try JSONRules(into: &rules).object)
        case .jsonSchema(let text):
            let schema = try Self.schema(text)
            let json = try JSONRules(into: &rules)
            rules.define(RuleSet.root, try SchemaCompiler.compile(schema, json, into: &rules))
        case .pattern(let text):
            try Self.check(text)
            let automaton = try CharacterAutomaton(Pattern(parsing: text), search: false)
            rules.define(RuleSet.root, .automaton(automaton, .utf8))
        case .choice(let texts):
            try Self.check(texts.joined())
            rules.define(RuleSet.root, .automaton(CharacterAutomaton(texts: texts), .utf8))
        case .ebnf(let text):
            try Self.check(text)
            rules = try EBNFParser.rules(of: text)
        case .toolCalls(let source): rules = try ToolCallCompiler.rules(of: source)
        case .afterReasoning(let source):
            rules = try source.rules()
            let answer = try rules.add(rules.expressions[RuleSet.root])
            // Rules that call the root mean the answer.
            rules.redirectRoot(to: answer)
            let end = "</think>"
            rules.define(
                RuleSet.root,
                .sequence([
                    try .text(without: [end]), .choice([.control(end), .text(end)]),
                    .repeated(.text("\n"), minimum: 0, maximum: 2), .rule(answer),
                ]))
        }
        return rules
    }

    static func schema(_ text: String) throws(GrammarError) -> JSONValue {
        try check(text)
        do {
            return try JSONValue(parsing: text)
        } catch {
            throw GrammarError(.invalid, "the schema is \(error)")
        }
    }

    private static func check(_ text: String) throws(GrammarError) {
        guard text.utf8.count <= maxBytes else {
            throw GrammarError(.tooLarge, "\(text.utf8.count) bytes; the most is \(maxBytes)")
        }
    }
}
