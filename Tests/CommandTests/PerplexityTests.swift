import Foundation
import Testing
import braid

@Suite struct PerplexityTests {
    private typealias Window = Perplexity.Window

    @Test(arguments: [true, false])
    func `every token counts once and lies at the end of its window`(hasPrefix: Bool) {
        for capacity in 2...9 {
            for stride in 1...10 {
                for tokens in 0...40 {
                    let windows = Perplexity.windows(
                        tokens: tokens, capacity: capacity, stride: stride, hasPrefix: hasPrefix)
                    let first = hasPrefix ? 0 : 1
                    #expect(windows.flatMap(\.scored) == Array(min(first, tokens)..<tokens))
                    for window in windows {
                        #expect(!window.scored.isEmpty)
                        #expect(window.scored.upperBound == window.shown.upperBound)
                        #expect(window.shown.count <= capacity)
                        // Some token precedes each scored one.
                        #expect(hasPrefix || window.scored.lowerBound > window.shown.lowerBound)
                        #expect(window.scored.lowerBound >= window.shown.lowerBound)
                    }
                    // After the first window, at least as many tokens precede the scored ones as the stride leaves.
                    for window in windows.dropFirst() {
                        let before = window.scored.lowerBound - window.shown.lowerBound
                        #expect(before >= min(capacity - stride, window.shown.count))
                    }
                }
            }
        }
    }

    @Test func `windows of a small text are these`() {
        #expect(
            Perplexity.windows(tokens: 10, capacity: 6, stride: 2, hasPrefix: true).map(\.shown) == [
                0..<6, 2..<8, 4..<10,
            ])
        #expect(
            Perplexity.windows(tokens: 10, capacity: 6, stride: 6, hasPrefix: true).map(\.scored) == [0..<6, 6..<10])
        #expect(
            Perplexity.windows(tokens: 10, capacity: 6, stride: 6, hasPrefix: false).map(\.scored) == [1..<6, 6..<10])
        #expect(Perplexity.windows(tokens: 1, capacity: 6, stride: 6, hasPrefix: false) == [])
    }

    @Test func `a uniform guess among eight has perplexity eight`() throws {
        var result = Perplexity(bytes: 6)
        #expect(result.perplexity == nil)
        #expect(result.bitsPerByte == nil)
        result.add([log(1 / 8), log(1 / 8)])
        result.add([log(1 / 8)])
        #expect(result.tokens == 3)
        #expect(abs(try #require(result.perplexity) - 8) < 1e-12)
        #expect(abs(try #require(result.bitsPerByte) - 1.5) < 1e-12)
    }
}
