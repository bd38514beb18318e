import Grammar
import Synchronization
import TestSupport
import Testing

/// Tests what patterns, grammars and schemas accept, and how they are refused.
@Suite struct SourceTests {
    @Test(arguments: [
        ("a|bc", ["a", "bc"], ["", "b", "abc"]),
        ("^(ab)*$", ["", "abab"], ["aba"]),
        ("[a-c]{2,3}", ["ab", "cab"], ["a", "abca", "d"]),
        ("[^a-c\\d]+", ["xyz", "é中😀"], ["x1", "a", ""]),
        ("\\d+\\.\\d{2}", ["3.14"], ["3.1", "३.14"]),
        ("\\p{Lu}\\p{Ll}+", ["Émile", "Ёлка"], ["émile", "A1"]),
        ("(?<year>[0-9]{4})(?:-x)?", ["2026", "2026-x"], ["2026-"]),
        ("a.c", ["abc", "a😀c"], ["a\nc"]),
        ("\\u{1F600}\\x41\\u00e9", ["😀Aé"], ["😀A"]),
        ("a{,2}b{1", ["aab{1", "b{1"], ["aaab{1"]),
        ("(^a|b)c$|d", ["ac", "bc", "d"], ["abc", "dc"]),
        ("x*?y+?", ["xxyy"], ["xx"]),
    ])
    func `a pattern matches the whole text`(pattern: String, accepted: [String], rejected: [String]) throws {
        let grammar = try grammar(.pattern(pattern))
        for text in accepted { #expect(try grammar.accepts(text), "\(text)") }
        for text in rejected { #expect(try !grammar.accepts(text), "\(text)") }
    }

    @Test(arguments: [
        ("(?=a)b", "look-ahead"), ("(?<!a)b", "look-behind"), ("(a)\\1", "back-references"), ("\\bword", "boundaries"),
        ("(?i)a", "flags"), ("\\p{Script=Han}", "\\p{Script=Han}"), ("a++", "possessive"), ("[[:alpha:]]", "POSIX"),
        ("a)", "')'"), ("(a", "'('"), ("[a", "'['"), ("*a", "nothing to repeat"), ("a{3,2}", "out of order"),
        ("[b-a]", "out of order"), ("a\\", "ends in"), ("\\u12", "hexadecimal"),
    ])
    func `a pattern that is not understood is refused by name`(pattern: String, word: String) throws {
        let error = try #require(refusal(.pattern(pattern)))
        #expect(error.description.contains(word), "\(error)")
    }

    @Test(arguments: [
        "a{1,1000000000}", "a{1000000000}", "((a{100}){100}){100}", "(a|b)*a(a|b){30}",
        String(repeating: "(", count: 5000) + String(repeating: ")", count: 5000),
        "(\\p{L}|\\p{N}){9000}", String(repeating: "x", count: 30_000),
    ])
    func `a pattern that grows without bounds is refused, not tried`(pattern: String) throws {
        // It is compiled alone, and inside a schema.
        #expect(try #require(refusal(.pattern(pattern))).kind == .tooLarge)
        let text = pattern.replacing("\\", with: "\\\\")
        #expect(try #require(refusal(.jsonSchema(#"{"type":"string","pattern":"\#(text)"}"#))).kind == .tooLarge)
    }

    @Test func `classic catastrophes of backtracking cost nothing`() throws {
        for pattern in ["(a+)+b", "(a|aa)+b", "(a*)*b", "(.*)*x.*y", "(x+x+)+y"] {
            let grammar = try grammar(.pattern(pattern))
            #expect(try !grammar.accepts(String(repeating: "a", count: 5000)))
        }
    }

    @Test func `a grammar is read as XGrammar and llama.cpp write it`() throws {
        let grammar = try grammar(
            .ebnf(
                #"""
                # An expression.
                root  ::= sum
                sum   ::= sum ("+" | "-") term   # calls itself first
                        | term
                term  ::= [0-9]{1,3} | "(" ws sum ws ")" | "\u00e9\x41\n"
                ws    ::= [ \t]*
                """#))
        for text in ["1", "1+22-333", "( (1) )+2", "éA\n"] { #expect(try grammar.accepts(text), "\(text)") }
        for text in ["", "1+", "1234", "(1", "+1"] { #expect(try !grammar.accepts(text), "\(text)") }
    }

    @Test(arguments: [
        ("a ::= \"x\"", "'root' is not defined"), ("root ::= x", "'x' is not defined"),
        ("root ::= \"a\" root ::= \"b\"", "twice"), ("root ::= \"a", "does not end"), ("root ::= (\"a\"", "'('"),
        ("root = \"a\"", "'::='"), ("root ::= \"a\"{2,1}", "{m,n}"), ("root ::= (=\"a\") \"b\"", "look-ahead"),
        ("root ::= TagDispatch((\"a\", root))", "TagDispatch"), ("root ::= root", "nothing can match"),
        ("root ::= \"a\" root", "nothing can match"), ("root ::= \"\\q\"", "escape"),
        ("root ::= [b-a]", "out of order"),
        ("root ::= \"a\"{1000000000}", "repetition"),
        ("root ::= \"a\"{90000} [a-c]{90000} .{90000} root{99999} [b]{90000}", "states"),
    ])
    func `a grammar that is not understood is refused with the reason`(text: String, word: String) throws {
        let error = try #require(refusal(.ebnf(text)))
        #expect(error.description.contains(word), "\(error)")
    }

    @Test(arguments: [
        (#"{"type":"object","properties":{"a":{"contains":{}}}}"#, "#/properties/a/contains"),
        (#"{"oneOf":[{"minimum":1},{"maximum":3}]}"#, "#/oneOf"),
        (#"{"$ref":"http://example.com/x"}"#, "#/$ref"),
        (##"{"$ref":"#/$defs/none"}"##, "#/$ref"),
        (#"{"items":{"uniqueItems":true}}"#, "#/items/uniqueItems"),
        (#"{"properties":{"a/b":{"pattern":"(?=x)"}}}"#, "#/properties/a~1b/pattern"),
        (#"{"type":"strnig"}"#, "#/type"), (#"{"format":"postcode"}"#, "#/format"),
        (#"{"minLength":-1}"#, "#/minLength"),
        (#"{"items":[1]}"#, "#/items/0"), (#"{"type":"string","maxLength":500000}"#, "repetition"), ("[]", "#"),
        ("{", "JSON"),
        (#"{"minProperties":3}"#, "minProperties"), (##"{"$defs":{"a":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"}"##, ""),
    ])
    func `a schema that cannot be enforced is refused with the path`(text: String, place: String) {
        let error = refusal(.jsonSchema(text))
        // A schema that is only a reference to itself requires nothing.
        #expect(
            place.isEmpty ? error == nil : error?.description.contains(place) ?? false, "\(String(describing: error))")
    }

    @Test func `schemas that multiply are refused in little time`() throws {
        let options = (0..<20).map { #"{"anyOf":[{"minLength":\#($0)},{"maxLength":\#($0 + 9)}]}"# }.joined(
            separator: ",")
        #expect(try #require(refusal(.jsonSchema("{\"allOf\":[\(options)]}"))).kind == .tooLarge)
        let deep = String(repeating: #"{"items":"#, count: 100) + "true" + String(repeating: "}", count: 100)
        #expect(refusal(.jsonSchema(deep)) == nil)
        let chain = (0..<3000).map { ##""d\##($0)":{"items":{"$ref":"#/$defs/d\##($0 + 1)"}}"## }.joined(separator: ",")
        #expect(refusal(.jsonSchema(##"{"$ref":"#/$defs/d0","$defs":{\##(chain),"d3000":{}}}"##)) == nil)
        let bounds =
            #"{"type":"array","maxItems":20000,"items":{"type":"array","maxItems":20000,"items":{"type":"array","maxItems":19999}}}"#
        #expect(refusal(.jsonSchema(bounds)) == nil)
        #expect(try #require(refusal(.jsonSchema(#"{"maxItems":1000000000}"#))).kind == .tooLarge)
    }

    @Test func `long lists of values are compiled, and any of them can be written`() throws {
        let count = 50_000
        let listed = (0..<count).map { "\"value \($0 % 97)-\($0)\"" }
        for text in [
            #"{"enum":[\#(listed.joined(separator: ","))]}"#,
            #"{"allOf":[{"enum":[\#(listed.prefix(20_000).joined(separator: ","))]},"#
                + #"{"enum":[\#(listed.prefix(20_001).joined(separator: ","))]}]}"#,
        ] {
            let grammar = try schema(text)
            #expect(try grammar.accepts(listed[19_999]) && !grammar.accepts(#""value 1-2""#))
            #expect(try #require(try grammar.state(after: "\"value 7")).mask().isEmpty == false)
        }
        let objects = (0..<2000).map { #"{"a":[\#($0),"x"],"b":{"n":\#($0)}}"# }
        let grammar = try schema(#"{"enum":[\#(objects.joined(separator: ","))]}"#)
        #expect(try grammar.accepts(objects[1999]) && grammar.accepts(objects[0].replacing(",", with: ",\n  ")))
        #expect(try !grammar.accepts(#"{"a":[1,"x"],"b":{"n":2}}"#))
    }

    @Test func `lists of values that take too many checks are refused`() throws {
        let values = (0..<20_000).map(String.init).joined(separator: ",")
        let options = (0..<200).map { #"{"minimum":\#($0)}"# }.joined(separator: ",")
        let error = try #require(refusal(.jsonSchema(#"{"enum":[\#(values)],"anyOf":[\#(options)]}"#)))
        #expect(error.kind == .tooLarge && error.description.contains("too many steps"))
    }

    @Test(arguments: [
        (#"{"type":"integer","enum":[7,10,-3]}"#, ["7", "10", "-3"], ["7.0", "10.0", "1", "-3.0"]),
        (#"{"const":7.0}"#, ["7.0"], ["7"]),
        (#"{"const":{"a":[1,2.5]}}"#, [#"{"a":[1,2.5]}"#, #"{"a": [1, 2.5]}"#], [#"{"a":[1.0,2.5]}"#]),
        (
            #"{"enum":[1,1.0,"1",{"b":1,"a":2}],"allOf":[{"enum":[1.0,{"a":2.0,"b":1}]}]}"#, ["1", #"{"b":1,"a":2}"#],
            [#""1""#]
        ),
    ])
    func `listed values are compared by value and written as the schema writes them`(
        text: String, accepted: [String], rejected: [String]
    ) throws {
        let grammar = try schema(text)
        for text in accepted { #expect(try grammar.accepts(text), "\(text)") }
        for text in rejected { #expect(try !grammar.accepts(text), "\(text)") }
    }

    @Test(arguments: [
        GrammarSource.pattern("(a|b){300}[c-z]{2000}"), .jsonSchema(#"{"type":"string","maxLength":3000}"#),
        .jsonSchema(#"{"enum":["a","b"]}"#), .ebnf("root ::= \"a\"{2000}"),
        .afterReasoning(
            .toolCalls(
                ToolCallSource(
                    tools: [.init(name: "f", parameters: nil, isStrict: true)], isRequired: true, allowsSeveral: true))),
    ])
    func `a compilation asks whether it is wanted, and ends if it is not`(source: GrammarSource) throws {
        let never: @Sendable () -> Bool = { false }
        #expect(GrammarWork.asking(never) { refusal(source) }?.kind == .givenUp)
        let questions = Mutex(0)
        let always: @Sendable () -> Bool = {
            questions.withLock { $0 += 1 }
            return true
        }
        let error = GrammarWork.asking(always) { refusal(source) }
        #expect(error == nil && questions.withLock { $0 } > 0)
    }

    /// Schemas whose patterns are each legal, and too many together.
    private static let manyPatterns: [(name: String, schema: String)] = {
        func properties(_ count: Int, _ value: (Int) -> String) -> String {
            "{" + (0..<count).map { #""p\#($0)":\#(value($0))"# }.joined(separator: ",") + "}"
        }
        let patterns = properties(20_000) { #"{"type":"string","pattern":"^(x|y){3}[a-m]{20}\#($0)$"}"# }
        let lengths = properties(2000) { #"{"type":"string","pattern":"x","maxLength":\#(9000 + $0)}"# }
        let named = (0..<20_000).map { #""^a{9}\#($0)":{}"# }.joined(separator: ",")
        let all = (0..<9000).map { #"{"pattern":"^[a-m]{9}\#($0)"}"# }.joined(separator: ",")
        return [
            ("properties", #"{"properties":\#(patterns)}"#), ("lengths", #"{"properties":\#(lengths)}"#),
            ("names", #"{"properties":\#(properties(2000) { _ in "{}" }),"patternProperties":{\#(named)}}"#),
            ("names of a listed value", #"{"enum":[{"a":1}],"patternProperties":{\#(named)}}"#),
            ("together", #"{"type":"string","allOf":[\#(all)]}"#),
        ]
    }()

    @Test(arguments: manyPatterns.indices) func `many patterns are refused after a bounded number of steps`(index: Int)
    {
        // A compilation asks in each slice of its steps, and sometimes beside them.
        let questions = Mutex(0)
        let count: @Sendable () -> Bool = {
            questions.withLock { $0 += 1 }
            return true
        }
        let (name, schema) = Self.manyPatterns[index]
        let error = GrammarWork.asking(count) { refusal(.jsonSchema(schema)) }
        #expect(error?.kind == .tooLarge, "\(name): \(String(describing: error))")
        let asked = questions.withLock { $0 }
        #expect(asked < 2 * GrammarWork.maxSteps / GrammarWork.slice, "\(name)")
    }

    @Test func `a long list that many parts refer to is refused before it is read for each of them`() {
        // Each of 2100 parts reads the list of 2100 options anew, which takes time and memory by the product.
        let references = Array(repeating: ##"{"$ref":"#/$defs/list"}"##, count: 2100).joined(separator: ",")
        let options = (0..<2100).map { #"{"const":\#($0)}"# }.joined(separator: ",")
        let error = refusal(
            .jsonSchema(##"{"anyOf":[\##(references)],"$defs":{"list":{"anyOf":[\##(options)]}}}"##))
        #expect(error?.kind == .tooLarge && error?.problem.contains("entries") == true, "\(String(describing: error))")
    }

    /// A definition of an object of so many properties.
    private func object(_ count: Int) -> String {
        let properties = (0..<count).map { #""p\#($0)":{}"# }.joined(separator: ",")
        return #"{"properties":{\#(properties)},"additionalProperties":false}"#
    }

    @Test func `an object of many properties is not derived for each of the many parts that refer to it`() {
        // A hundred objects of 2000 properties have more nodes than a grammar may have states.
        let references = Array(repeating: ##"{"$ref":"#/$defs/object"}"##, count: 1000).joined(separator: ",")
        let error = refusal(
            .jsonSchema(##"{"anyOf":[\##(references)],"$defs":{"object":\##(object(2000))}}"##))
        #expect(
            error?.kind == .tooLarge && error?.problem.contains("the schema's objects") == true,
            "\(String(describing: error))")
    }

    @Test func `the properties of an object that many parts refer to are read once`() {
        // If they were read for each pair of options, they would count as 4,950,000 entries.
        let options = (0..<100).map { ##"{"$ref":"#/$defs/object","const":{"p0":\##($0)}}"## }.joined(separator: ",")
        let error = refusal(
            .jsonSchema(##"{"oneOf":[\##(options)],"$defs":{"object":\##(object(500))}}"##))
        #expect(error == nil, "\(String(describing: error))")
    }

    @Test func `required properties are not compared without end for each pair of options`() {
        // Each of 4950 pairs differs in the last of 2001 required properties.
        let names = (0..<2000).map { #""p\#($0)""# }.joined(separator: ",")
        let options = (0..<100).map {
            ##"{"allOf":[{"$ref":"#/$defs/names"},{"properties":{"k":{"const":\##($0)}},"required":["k"]}]}"##
        }.joined(separator: ",")
        let error = refusal(
            .jsonSchema(##"{"oneOf":[\##(options)],"$defs":{"names":{"type":"object","required":[\##(names)]}}}"##))
        #expect(error?.kind == .tooLarge && error?.problem.contains("entries") == true, "\(String(describing: error))")
    }

    @Test func `many small patterns, and many of the same, are compiled`() throws {
        let formats = (0..<300).map { #""p\#($0)":{"type":"string","format":"date-time"}"# }.joined(separator: ",")
        #expect(refusal(.jsonSchema(#"{"properties":{\#(formats)}}"#)) == nil)
        let patterns = (0..<500).map { #""p\#($0)":{"type":"string","pattern":"^[a-z]{3}\#($0)$"}"# }.joined(
            separator: ",")
        #expect(refusal(.jsonSchema(#"{"properties":{\#(patterns)}}"#)) == nil)
    }

    @Test func `a long compilation asks again and again`() throws {
        let listed = (0..<20_000).map { "\"\($0)\"" }.joined(separator: ",")
        let left = Mutex(30)
        let often: @Sendable () -> Bool = {
            left.withLock {
                $0 -= 1
                return $0 > 0
            }
        }
        let error = GrammarWork.asking(often) { refusal(.jsonSchema(#"{"enum":[\#(listed)]}"#)) }
        #expect(error?.kind == .givenUp && left.withLock { $0 } <= 0)
    }

    @Test func `an ambiguous grammar fails with an error when its sets grow too large`() throws {
        let vocabulary = try Fixtures.deepSeekV32()
        let compiled = try CompiledGrammar(
            .ebnf("root ::= x{99999}\nx ::= [a-h]? [i-p]? [q-z]? [A-M]? [N-Z]? [0-9]?"), vocabulary)
        let error = #expect(throws: GrammarError.self) { try compiled.start.mask() }
        #expect(error?.kind == .tooLarge && error?.problem.contains("too ambiguous") == true)
        // It can be followed nevertheless, at some cost for each byte.
        #expect(try compiled.accepts("aB3"))
    }

    @Test func `what may follow is found in time by the number of rules, not by its square`() throws {
        func seconds(_ rules: Int) throws -> Double {
            let names = (0..<rules).map { "r\($0)" }.joined(separator: " | ")
            let definitions = (0..<rules).map { "r\($0) ::= \"a\"" }.joined(separator: "\n")
            let grammar = try grammar(.ebnf("root ::= (\(names))*\n\(definitions)"))
            let before = threadSeconds()
            #expect(try grammar.accepts("aa"))
            return threadSeconds() - before
        }
        let (few, many) = (try seconds(1500), try seconds(12_000))
        // Eight times the rules; the square takes 64 times as long.
        #expect(many < 30 * few, "\(few) s, \(many) s")
    }

    @Test func `nesting beyond the bound is not allowed, and what is open can be closed`() throws {
        let grammar = try grammar(.jsonObject)
        var state = try #require(try grammar.state(after: "{\"a\":"))
        var depth = 0
        while let next = try state.advanced(by: Array("[".utf8)), depth < 10_000 { (state, depth) = (next, depth + 1) }
        #expect((100..<10_000).contains(depth))
        #expect(try !state.mask().isEmpty)
        let closed = try state.advanced(by: Array((String(repeating: "]", count: depth) + "}").utf8))
        #expect(closed?.mayEnd == true && closed?.isFinal == true)
    }

    @Test func `sources whose texts are only canonically equivalent do not share a grammar`() throws {
        let cache = GrammarCache(Fixtures.bytes)
        let spellings = ["\u{e9}", "e\u{301}"]
        let kinds: [(String) -> GrammarSource] = [
            { .pattern($0) }, { .choice([$0]) }, { .ebnf("root ::= \"\($0)\"") }, { .afterReasoning(.pattern($0)) },
        ]
        for kind in kinds {
            for spelling in spellings {
                let grammar = try cache.grammar(for: kind(spelling))
                for text in spellings {
                    let whole = if case .afterReasoning = kind("") { "</think>\(text)" } else { text }
                    #expect(try grammar.accepts(whole) == text.utf8.elementsEqual(spelling.utf8), "\(kind(spelling))")
                }
            }
        }
    }

    @Test func `a grammar that is in use is found again after many others, and one that is not is released`() throws {
        let cache = GrammarCache(Fixtures.bytes)
        let used = try cache.grammar(for: .pattern("used"))
        weak let unused = try cache.grammar(for: .pattern("unused"))
        for number in 0..<GrammarCache.maxEntries - 2 { _ = try cache.grammar(for: .pattern("\(number)")) }
        #expect(unused != nil)
        _ = try cache.grammar(for: .pattern("one more"))
        _ = try cache.grammar(for: .pattern("and another"))
        #expect(unused == nil)
        #expect(try cache.grammar(for: .pattern("used")) === used)
    }

    @Test func `a grammar that was found again is kept like a new one`() throws {
        let cache = GrammarCache(Fixtures.bytes)
        func fill(_ count: Int, _ name: String) throws {
            for number in 0..<count { _ = try cache.grammar(for: .pattern("\(name)\(number)")) }
        }
        weak var grammar: CompiledGrammar?
        do {
            let used = try cache.grammar(for: .pattern("used"))
            grammar = used
            try fill(GrammarCache.maxEntries, "a")
            #expect(try cache.grammar(for: .pattern("used")) === used)
        }
        try fill(GrammarCache.maxEntries - 1, "b")
        #expect(grammar != nil)
        try fill(1, "c")
        #expect(grammar == nil)
    }

    @Test func `requests that come at the same time share a grammar`() async throws {
        let cache = GrammarCache(Fixtures.bytes)
        let found = try await withThrowingTaskGroup(of: CompiledGrammar.self) { group in
            for _ in 0..<16 { group.addTask { try cache.grammar(for: .pattern("[a-z]{1,40}[0-9]{1,40}")) } }
            var found: [CompiledGrammar] = []
            for try await grammar in group { found.append(grammar) }
            return found
        }
        #expect(found.count == 16 && found.allSatisfy { $0 === found[0] })
    }

    @Test func `parts of a schema whose names are only canonically equivalent are different parts`() throws {
        let grammar = try schema(
            ##"""
            {"$defs": {"\##u{e9}": {"const": 1}, "e\##u{301}": {"const": 2}}, "type": "object", "required": ["a", "b"],
             "properties": {"a": {"$ref": "#/$defs/\##u{e9}"}, "b": {"$ref": "#/$defs/e\##u{301}"}}}
            """##)
        #expect(try grammar.accepts(#"{"a":1,"b":2}"#))
        #expect(try !grammar.accepts(#"{"a":1,"b":1}"#))
    }
}
