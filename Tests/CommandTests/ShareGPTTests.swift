import Testing
import braid

@Suite struct `Conversations of ShareGPT` {
    private static let text = """
        [{"id": "a", "conversations": [{"from": "human", "value": "p1"}, {"from": "gpt", "value": "a1"}]},
         {"conversations": [{"value": "alone"}]}, {"conversations": []}, 7,
         {"conversation": [{"value": "p2"}, {"value": "a2"}, {"value": "p3"}]}]
        """

    @Test func `give their first two messages, in an order that the seed decides`() throws {
        let turns = try ShareGPT(DataFile(name: "f", Self.text), seed: 1).turns
        #expect(Set(turns.map(\.prompt)) == ["p1", "p2"] && Set(turns.map(\.answer)) == ["a1", "a2"])
        #expect(try ShareGPT(DataFile(name: "f", Self.text), seed: 1).turns == turns)
        let orders = try (0..<16).map { try ShareGPT(DataFile(name: "f", Self.text), seed: $0).turns[0].prompt }
        #expect(Set(orders).count == 2)
    }

    @Test(arguments: ["", "{", "[]", "{}", #"[{"conversations": [{"value": "alone"}]}]"#])
    func `are refused where there are none`(text: String) throws {
        let error = try #require(throws: (any Error).self) { try ShareGPT(DataFile(name: "f", text), seed: 1) }
        #expect("\(error)".hasPrefix("f"))
    }
}
