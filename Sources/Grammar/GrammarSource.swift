import JSON
import Tokenization

/// Describes the form that a request requires of a text. It is small, and every process compiles it to the same
/// grammar.
package indirect enum GrammarSource: Sendable, Hashable {
    /// The text is any JSON object.
    case jsonObject
    /// The text follows a schema (draft 2020-12), given as JSON text.
    case jsonSchema(String)
    /// The whole text matches a regular expression.
    case pattern(String)
    /// The text is one of several texts.
    case choice([String])
    /// The text follows a grammar in the notation of XGrammar and llama.cpp.
    case ebnf(String)
    /// The text contains calls of tools.
    case toolCalls(ToolCallSource)
    /// The text is any text up to `</think>`, followed by a text of another source. If that source contains calls of
    /// tools, a call may also end the reasoning, without the mark.
    case afterReasoning(GrammarSource)

    /// A source may have this many bytes; longer ones are refused.
    package static let maxBytes = 1 << 20
}

extension GrammarSource {
    /// All texts of the source, in order.
    private var texts: [String] {
        switch self {
        case .jsonObject: []
        case .jsonSchema(let text), .pattern(let text), .ebnf(let text): [text]
        case .choice(let texts): texts
        case .toolCalls(let source):
            source.tools.flatMap { [$0.name, $0.parameters ?? ""] } + [source.answerSchema ?? ""]
        case .afterReasoning(let source): source.texts
        }
    }

    /// The number of bytes of the source, of which `maxBytes` are the most.
    package var byteCount: Int { texts.reduce(0) { $0 + $1.utf8.count } }

    /// Returns whether two sources are equal, and their texts byte by byte: `==` also holds for strings that are only
    /// canonically equivalent, which require different texts.
    package func isIdentical(to other: GrammarSource) -> Bool {
        // `==` normalizes strings that are not ASCII, which takes long, so it comes last.
        zip(texts, other.texts).allSatisfy { $0.utf8.elementsEqual($1.utf8) } && self == other
    }
}

extension CompiledGrammar {
    /// Compiles a source.
    ///
    /// - Throws: for sources that are malformed, that use something unsupported, or that are too large.
    package convenience init(_ source: GrammarSource, _ vocabulary: GrammarVocabulary) throws(GrammarError) {
        try self.init(
            try GrammarWork.counting { () throws(GrammarError) in try source.rules() }, vocabulary)
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
        case .toolCalls(let source): rules = try ToolCallCompiler.compile(source).rules
        case .afterReasoning(let source): rules = try source.rulesAfterReasoning()
        }
        return rules
    }

    private func rulesAfterReasoning() throws(GrammarError) -> RuleSet {
        var (rules, calls, openings) = (RuleSet(), Expression.nothing, [String]())
        if case .toolCalls(let source) = self {
            (rules, calls) = try ToolCallCompiler.compile(source)
            openings = source.markup.openings
        } else {
            rules = try self.rules()
        }
        let answer = try rules.add(rules.expressions[RuleSet.root])
        // Rules that call the root refer to the answer alone.
        rules.redirectRoot(to: answer)
        let end = "</think>"
        let marked = Expression.sequence([
            .choice([.control(end), .text(end)]), .repeated(.text("\n"), minimum: 0, maximum: 2), .rule(answer),
        ])
        // The beginning of a call in reasoning is that of a call that the source allows, or nothing.
        rules.define(
            RuleSet.root, .sequence([try .text(without: [end] + openings), .choice([marked, calls])]))
        return rules
    }

    static func schema(_ text: String) throws(GrammarError) -> JSONValue {
        try check(text)
        do {
            return try JSONValue(parsing: text.utf8, mayContinue: { GrammarWork.isWanted })
        } catch {
            try GrammarWork.check()
            throw GrammarError(.invalid, "the schema is \(error)")
        }
    }

    private static func check(_ text: String) throws(GrammarError) {
        guard text.utf8.count <= maxBytes else {
            throw GrammarError(.tooLarge, "\(text.utf8.count) bytes; the most is \(maxBytes)")
        }
    }
}
