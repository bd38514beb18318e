import Foundation
import Inference
import JSON
import Testing
import braid

@Suite struct PasskeyTests {
    private func document(depth: Int = 50, number: Int = 0, seed: UInt64 = 1) -> PasskeyDocument {
        PasskeyDocument(length: 1000, depth: depth, number: number, seed: seed)
    }

    private static let sentences = PasskeyWords.sentences(300, seed: 1)

    /// Returns a token for each word, and one for each full stop.
    private static func words(_ text: String) -> [Int] {
        [Int](repeating: 1, count: text.split { $0 == " " || $0 == "\n" }.count + text.count { $0 == "." })
    }

    private var filler: PasskeyFiller {
        PasskeyFiller(Self.sentences, counts: Self.sentences.map { Self.words($0).count })
    }

    @Test func `documents are a function of the seed and of what they are for`() {
        let texts = [
            document(), document(number: 1), document(depth: 51), document(seed: 2),
            PasskeyDocument(length: 1001, depth: 50, number: 0, seed: 1),
        ].map { $0.text(filler: Self.sentences) }
        #expect(document().text(filler: Self.sentences) == texts[0])
        #expect(Set(texts).count == texts.count)
    }

    @Test func `each fact is there once and the asked one has no rival`() {
        for number in 0..<200 {
            let document = document(depth: number % 101, number: number)
            let text = document.text(filler: Self.sentences)
            #expect(document.facts.count == 8)
            #expect(Set(document.facts.map(\.name)).count == 8)
            #expect(Set(document.facts.map(\.key)).count == 8)
            for fact in document.facts { #expect(text.ranges(of: fact.sentence).count == 1) }
            let name = document.facts[0].name
            #expect(text.hasSuffix("\n\nWhat is the pass key for \(name)? The pass key for \(name) is"))
            #expect(document.expected.count == 5)
        }
    }

    @Test(arguments: [0, 25, 50, 75, 100])
    func `the asked fact lies where it should`(depth: Int) throws {
        for number in 0..<20 {
            let document = document(depth: depth, number: number)
            var body = document.text(filler: Self.sentences)
            body = String(body[..<body.range(of: "\n\n")!.lowerBound])
            let parts = body.split(separator: document.facts[0].sentence, omittingEmptySubsequences: false)
            let place = Double(parts[0].count) / Double(body.count)
            #expect(abs(place - Double(depth) / 100) < 0.05)
            if depth == 0 { #expect(parts[0].isEmpty) }
            if depth == 100 { #expect(!Self.sentences.contains { parts[1].contains($0) }) }
        }
    }

    @Test(arguments: [200, 201, 202, 203, 1024, 4096])
    func `documents have exactly the tokens asked for`(length: Int) async throws {
        for number in 0..<10 {
            let tokens = try await document(number: number).tokens(length: length, filler: filler) { Self.words($0) }
            #expect(tokens.count == length)
        }
    }

    @Test func `tokens that are lost or won between sentences are made up for`() async throws {
        let tokens = try await document().tokens(length: 1000, filler: filler) { text in
            // This tokenizer gives one token less for every tenth sentence, and five more for the whole.
            let words = Self.words(text)
            return Array(words.dropLast(text.count { $0 == "." } / 10)) + [1, 1, 1, 1, 1]
        }
        #expect(abs(tokens.count - 1000) <= 1)
    }

    @Test func `a length that facts alone exceed is refused`() async throws {
        await #expect(throws: (any Error).self) {
            try await document().tokens(length: 20, filler: filler) { Self.words($0) }
        }
    }

    @Test func `sentences of one length fill what they can`() {
        var random = SeededGenerator(seed: 3)
        let filler = PasskeyFiller(["Aa."], counts: [7])
        for (tokens, count) in [(0, 0), (6, 0), (7, 1), (13, 1), (100, 14)] {
            #expect(filler.sentences(tokens: tokens, using: &random).count == count)
        }
    }

    @Test func `subsets reach a sum or come as near as possible from below`() {
        var random = SeededGenerator(seed: 5)
        for _ in 0..<300 {
            let values = (0..<Int.random(in: 0...8, using: &random)).map { _ in Int.random(in: 1...9, using: &random) }
            let sum = Int.random(in: 0...30, using: &random)
            let found = PasskeyFiller.subset(of: values, sum: sum)
            #expect(found == Array(Set(found)).sorted())
            let best = (0..<1 << values.count).map { set in
                values.indices.filter { set >> $0 & 1 == 1 }.map { values[$0] }.reduce(0, +)
            }.filter { $0 <= sum }.max()
            #expect(found.map { values[$0] }.reduce(0, +) == best)
        }
    }

    @Test(
        arguments: [
            (" 64193.", "64193"), ("64193", "64193"), (" 641930", "641930"), ("\n 6 4", "6"), (" the", nil), ("", nil),
            (" ٤٢", nil), (".12", nil),
        ] as [(String, String?)])
    func `a key is all the digits an answer begins with`(text: String, key: String?) {
        #expect(PasskeyDocument.key(in: text) == key)
    }

    @Test func `tables have a line for each length and a column for each depth`() {
        var table = PasskeyTable(lengths: [1024, 4096], depths: [0, 100])
        for (length, depth, answer) in [(1024, 0, "1"), (1024, 0, "2"), (1024, 100, "1"), (4096, 0, "1")] {
            table.count(answer, expected: "1", length: length, depth: depth)
        }
        table.count(.some(nil), expected: "1", length: 4096, depth: 0)
        table.count(nil, expected: "1", length: 4096, depth: 100)
        #expect(
            table.text == """
                  tokens     0 %   100 %     all
                    1024   0.500   1.000   0.667
                    4096   0.500       -   0.500
                     all   0.500   1.000   0.600
                Accuracy: 0.600 (3 of 5)
                """)
        #expect(table.score().invalid == 1)
        #expect(table.score().failed == 1)
        #expect(table.score(depth: 0).answered == 4)
        #expect(table.json.array?.count == 4)
        #expect(table.json.array?.last?["failed"]?.integer == 1)
    }

    @Test func `depths are percentages`() throws {
        #expect(try percentages("100, 0,50,0") == [0, 50, 100])
        for text in ["", "1,", "-1", "101", "0.5", "a", "50%"] {
            #expect(throws: (any Error).self, "\(text)") { try percentages(text) }
        }
    }
}
