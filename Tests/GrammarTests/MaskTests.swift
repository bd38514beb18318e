import Grammar
import JSON
import Testing
import Tokenization

/// Tests masks over the released vocabulary of 129,280 tokens.
@Suite struct MaskTests {
    static let schemas = [
        #"{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0,"maximum":150},"tags":{"type":"array","items":{"type":"string","maxLength":12}},"mail":{"type":"string","format":"email"}},"required":["name","age"],"additionalProperties":false}"#,
        #"{"type":"array","items":{"anyOf":[{"const":"é\"\\"},{"type":"number","multipleOf":0.25},{"type":"null"}]},"minItems":1,"maxItems":3}"#,
        ##"{"$ref":"#/$defs/node","$defs":{"node":{"type":"object","properties":{"v":{"enum":[1,2.5,"x"]},"next":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]}},"required":["v","next"],"additionalProperties":false}}}"##,
        #"{"type":"object","patternProperties":{"^x_[a-z]+$":{"type":"boolean"}},"additionalProperties":{"type":"string","pattern":"^[^aeiou]*$"},"minProperties":1}"#,
    ]

    @Test(arguments: schemas.indices)
    func `texts of random allowed tokens are JSON, and masks say what can be read`(index: Int) throws {
        let vocabulary = try Fixtures.deepSeekV32()
        let compiled = try CompiledGrammar(.jsonSchema(Self.schemas[index]), vocabulary)
        var generator = SplitMix(state: UInt64(index))
        for _ in 0..<8 {
            var (state, bytes) = (try compiled.start, [UInt8]())
            // Tokens are random at first, later the shortest that may follow.
            for step in 0..<400 where !state.isFinal {
                let mask = try state.mask()
                let tokens = (0..<Int32(vocabulary.size)).filter { mask.contains($0) }
                #expect(!tokens.isEmpty || state.mayEnd)
                for _ in 0..<50 {
                    let token = Int32(generator.below(vocabulary.size))
                    #expect(try mask.contains(token) == (state.advanced(by: token) != nil), "token \(token)")
                }
                if state.mayEnd, generator.below(2) == 0 { break }
                let token =
                    step < 30
                    ? tokens[generator.below(tokens.count)]
                    : Self.closing.lazy.compactMap { byte in
                        tokens.first { vocabulary.bytes(of: $0) == [byte] }
                    }.first ?? tokens[generator.below(tokens.count)]
                bytes += vocabulary.bytes(of: token)
                state = try #require(try state.advanced(by: token))
            }
            #expect(state.mayEnd, "after \(String(decoding: bytes, as: UTF8.self))")
            #expect(throws: Never.self) { try JSONValue(parsing: bytes) }
        }
    }

    /// Lists the tokens that end strings, objects and arrays soonest.
    private static let closing = Array("\"}]nul1:,".utf8)

    @Test func `a mask that is known is not searched again, and plain text is not searched at all`() throws {
        let vocabulary = try Fixtures.deepSeekV32()
        let compiled = try CompiledGrammar(.jsonSchema(Self.schemas[0]), vocabulary)
        let state = try #require(try compiled.state(after: "{\"name\": \"Ada"))
        let mask = try state.mask()
        let cold = compiled.searchedNodes
        // The search reads those of some 340,000 nodes that are outside of plain text.
        #expect(mask.count > 100_000)
        #expect((1..<60_000).contains(cold))
        for _ in 0..<5 { #expect(try state.mask() == mask) }
        let later = try #require(try state.advanced(by: Array(" Lovelace".utf8)))
        #expect(try later.mask() == mask)
        #expect(compiled.searchedNodes == cold)
    }

    @Test func `control tokens match only where a grammar names them`() throws {
        let vocabulary = GrammarVocabulary(
            bytes: [Array("a".utf8), Array("<".utf8), [], Array("<end>".utf8)], controlTokens: ["<end>": 2], size: 64)
        let compiled = try CompiledGrammar(.ebnf("root ::= ."), vocabulary)
        #expect(try !compiled.start.mask().contains(2))
        #expect(try compiled.start.advanced(by: 2) == nil)
        #expect(try compiled.start.mask().count == 2)
    }

    @Test func `a state is a value, and survives the replacement of the grammar's memory`() throws {
        let compiled = try grammar(.ebnf("root ::= (\"a\" | \"b\")* \"a\" (\"a\" | \"b\"){17} | \"(\" root \")\""))
        let early = try #require(try compiled.state(after: "(((ab"))
        let expected = try early.advanced(by: Array("aabbabababababbabb".utf8))?.mask()
        var generator = SplitMix(state: 7)
        var state = early
        var renewals = 0
        for _ in 0..<120_000 where renewals < 2 {
            let before = compiled.searchedNodes
            _ = try state.mask()
            state = try #require(try state.advanced(by: [generator.below(2) == 0 ? 0x61 : 0x62]))
            if compiled.searchedNodes < before { renewals += 1 }
        }
        #expect(renewals > 0, "the memory was to become too large")
        #expect(try early.advanced(by: Array("aabbabababababbabb".utf8))?.mask() == expected)
        #expect(try early.advanced(by: Array("aabbabababababbabb)))".utf8))?.isFinal == true)
    }
}
