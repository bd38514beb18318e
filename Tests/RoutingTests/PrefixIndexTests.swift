import JSON
import Routing
import TestSupport
import Testing

@Suite struct `The index of prefixes` {
    private static func text(_ letters: String) -> RoutedText {
        let prompt = letters.map { String(repeating: $0, count: RoutedText.blockBytes) }.joined()
        return RoutedText(of: .fields(["prompt": .string(prompt)]))
    }

    @Test func `knows for every worker how much of a text it has seen`() {
        var index = PrefixIndex()
        index.insert(Self.text("abc"), slot: 0)
        index.insert(Self.text("abxyz"), slot: 63)
        let known = index.matchedBytes(Self.text("abcde"))
        let matched = known.map { $0 / RoutedText.blockBytes }
        #expect(matched[0] == 3 && matched[63] == 2 && matched[1...62].allSatisfy { $0 == 0 })
        let unknown = index.matchedBytes(Self.text("bc"))
        #expect(unknown.allSatisfy { $0 == 0 })
    }

    @Test func `forgets a worker, and nothing of the others`() {
        var index = PrefixIndex()
        index.insert(Self.text("abc"), slot: 0)
        index.insert(Self.text("abc"), slot: 1)
        index.forget(slot: 0)
        let matched = index.matchedBytes(Self.text("abc"))
        #expect(matched[0] == 0 && matched[1] == 3 * RoutedText.blockBytes)
    }

    @Test func `is bounded, and keeps what is used`() {
        var index = PrefixIndex(capacity: 8)
        index.insert(Self.text("ab"), slot: 0)
        for number in 0..<100 {
            let known = index.matchedBytes(Self.text("ab"))
            #expect(known[0] > 0, "evicted after \(number) others")
            index.insert(Self.text(String(UnicodeScalar(UInt32(0x100 + number))!)), slot: 1)
            #expect(index.count <= 8)
        }
    }

    @Test func `has room for a text that is longer than itself`() {
        var index = PrefixIndex(capacity: 3)
        index.insert(Self.text("abcdefgh"), slot: 2)
        #expect(index.count == 3)
        let matched = index.matchedBytes(Self.text("abcdefgh"))
        #expect(matched[2] == 0)
    }

    @Test func `finds what a search through all texts finds`() {
        var random = SplitMix64(seed: 5)
        for _ in 0..<200 {
            var index = PrefixIndex()
            var seen: [(String, Int)] = []
            for _ in 0..<20 {
                let letters = String(
                    (0..<Int.random(in: 0...6, using: &random)).map { _ in "ab".randomElement(using: &random)! })
                let text = Self.text(letters)
                let expected = (0..<PrefixIndex.maxSlots).map { slot in
                    seen.filter { $0.1 == slot }.map { zip(letters, $0.0).prefix { $0 == $1 }.count }.max() ?? 0
                }
                let wholeBlocks = text.blocks.count
                #expect(
                    index.matchedBytes(text).map { $0 / RoutedText.blockBytes }
                        == expected.map { min($0, wholeBlocks) })
                let slot = Int.random(in: 0..<PrefixIndex.maxSlots, using: &random)
                if Bool.random(using: &random) {
                    index.insert(text, slot: slot)
                    seen.append((letters, slot))
                } else {
                    index.forget(slot: slot)
                    seen.removeAll { $0.1 == slot }
                }
            }
        }
    }
}
