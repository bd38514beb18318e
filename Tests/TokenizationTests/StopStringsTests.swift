import Testing
import Tokenization

@Suite struct `Stop strings` {
    /// Feeds pieces; returns the text before the stop, the stop and what follows it.
    private func run(_ stops: [String], _ pieces: [String]) -> (text: String, match: String?, rest: String) {
        var search = StopStrings(stops)
        var (text, match, rest) = ("", String?.none, "")
        for piece in pieces {
            let result = search.feed(piece)
            text += result.text
            match = match ?? result.match
            rest += result.rest
        }
        return (text + search.finish(), match, rest)
    }

    @Test func `a stop string ends the text wherever it is cut`() {
        for cut in 0...11 {
            let text = "one STOP two"
            let pieces = [String(text.prefix(cut)), String(text.dropFirst(cut))]
            let result = run(["STOP"], pieces)
            #expect(result.text == "one " && result.match == "STOP" && result.rest == " two")
        }
    }

    @Test func `what may become a stop string is held back and no more`() {
        var search = StopStrings(["</think>", "\n\nUser:"])
        #expect(search.feed("a</thi").text == "a")
        #expect(search.feed("s").text == "</this")
        #expect(search.feed("\n").text == "")
        #expect(search.feed("\n").text == "")
        #expect(search.feed("\n").text == "\n")
        #expect(search.feed("\nUse").text == "\n")
        #expect(search.finish() == "\n\nUse")
    }

    @Test func `the string that ends first wins and of two the longer`() {
        #expect(run(["abcd", "bc"], ["xabcd"]).text == "xa")
        #expect(run(["bc", "abc"], ["xabcd"]).text == "x")
        #expect(run(["abc", "bc"], ["xabcd"]).match == "abc")
    }

    @Test func `repeats inside a stop string are found`() {
        #expect(run(["aab"], ["aaab"]).text == "a")
        #expect(run(["abab!"], ["ababab!"]).text == "ab")
    }

    @Test func `nothing is found without stop strings or after one`() {
        #expect(run([], ["abc"]).text == "abc")
        var search = StopStrings(["x"])
        let stopped = search.feed("axb")
        #expect(stopped.text == "a" && stopped.match == "x" && stopped.rest == "b")
        let later = search.feed("xc")
        #expect(later.text == "" && later.match == nil && later.rest == "xc")
        #expect(search.hasStopped && search.finish() == "")
    }

    @Test func `any cutting gives what a search of the whole gives`() {
        var generator = SplitMix(state: 11)
        func text(_ range: ClosedRange<Int>) -> String {
            let parts = ["a", "b", "é", "e\u{301}", "\r\n"]
            return (0..<Int.random(in: range, using: &generator)).map { _ in parts.randomElement(using: &generator)! }
                .joined()
        }
        for _ in 0..<3000 {
            let stops = (0..<Int.random(in: 1...3, using: &generator)).map { _ in text(1...4) }
            let whole = text(0...14)
            let result = run(stops, cut(whole, &generator))
            // The match ends at the first place where a stop string ends, and is the longest that ends there.
            let bytes = Array(whole.utf8)
            let end = bytes.indices.first { end in
                stops.contains { bytes[...end].suffix($0.utf8.count).elementsEqual($0.utf8) }
            }
            let match = end.flatMap { end in
                stops.filter { bytes[...end].suffix($0.utf8.count).elementsEqual($0.utf8) }.max {
                    $0.utf8.count < $1.utf8.count
                }
            }
            let textLength = end.map { $0 + 1 - (match?.utf8.count ?? 0) } ?? bytes.count
            #expect(Array(result.text.utf8) == Array(bytes[..<textLength]))
            #expect(result.match.map { Array($0.utf8) } == match.map { Array($0.utf8) })
            #expect(Array(result.rest.utf8) == Array(bytes[(end.map { $0 + 1 } ?? bytes.count)...]))
        }
    }
}

/// Cuts a text into pieces at random places between code points.
func cut(_ text: String, _ generator: inout SplitMix) -> [String] {
    var pieces = [""]
    for scalar in text.unicodeScalars {
        if Int.random(in: 0..<3, using: &generator) == 0 { pieces.append("") }
        pieces[pieces.count - 1].unicodeScalars.append(scalar)
    }
    return pieces
}
