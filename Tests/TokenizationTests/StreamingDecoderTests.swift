import Foundation
import TestSupport
import Testing
import Tokenization

@Suite struct `Decoding tokens` {
    /// Has a token per byte, so that any bytes can be fed.
    private let tokenizer = try! TinyTokenizer().load()

    @Test func `characters come out whole`() throws {
        let tokenizer = try Fixtures.deepSeekV32()
        for vector in try Fixtures.vectors() {
            var decoder = StreamingDecoder(tokenizer, skippingSpecialTokens: false)
            var text = ""
            for id in vector.v32 {
                let piece = decoder.feed(id)
                #expect(!piece.unicodeScalars.contains("\u{FFFD}") || vector.text.unicodeScalars.contains("\u{FFFD}"))
                text += piece
            }
            #expect(decoder.finish() == "")
            #expect(scalars(text) == scalars(vector.text))
        }
    }

    @Test(
        arguments: [
            ([0x41, 0xC3], "A\u{FFFD}"),
            ([0xE4, 0xBD], "\u{FFFD}"),
            ([0xE4, 0xBD, 0x41], "\u{FFFD}A"),
            ([0xF0, 0x9F, 0x98, 0xE4, 0xBD, 0xA0], "\u{FFFD}你"),
            ([0x80, 0x80, 0x41], "\u{FFFD}\u{FFFD}A"),
            ([0xC0, 0xAF], "\u{FFFD}\u{FFFD}"),
            ([0xE0, 0x80, 0x80], "\u{FFFD}\u{FFFD}\u{FFFD}"),
            ([0xED, 0xA0, 0x80], "\u{FFFD}\u{FFFD}\u{FFFD}"),
            ([0xF4, 0x90, 0x80, 0x80], "\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}"),
            ([0xF5, 0xFF], "\u{FFFD}\u{FFFD}"),
            ([0xF0, 0x9F, 0x98, 0x80], "😀"),
        ] as [([Int32], String)])
    func `bytes that are no text become replacement characters`(bytes: [Int32], expected: String) {
        #expect(scalars(tokenizer.decode(bytes)) == scalars(expected))
    }

    @Test func `any bytes decode as all at once`() {
        var generator = SplitMix64.printed()
        let interesting: [Int32] = [0x41, 0x80, 0xBF, 0xC2, 0xE0, 0xA0, 0xED, 0x9F, 0xF0, 0x90, 0xF4, 0x8F, 0xFF]
        for _ in 0..<2000 {
            let bytes = (0..<Int.random(in: 0...9, using: &generator)).map { _ in
                interesting.randomElement(using: &generator)!
            }
            #expect(
                scalars(tokenizer.decode(bytes)) == scalars(String(decoding: bytes.map { UInt8($0) }, as: UTF8.self)))
        }
    }

    @Test func `an unfinished character is held back until it is whole`() {
        var decoder = StreamingDecoder(tokenizer)
        #expect([0xF0, 0x9F, 0x98, 0x80].map { decoder.feed($0) } == ["", "", "", "😀"])
        #expect(decoder.feed(0xE4) == "" && decoder.finish() == "\u{FFFD}" && decoder.finish() == "")
    }

    @Test func `special tokens are left out, except those that are kept`() throws {
        let tokenizer = try Fixtures.deepSeekV32()
        let ids = tokenizer.encode("<｜begin▁of▁sentence｜>a</think><｜DSML｜b", allowingControlTokens: true)
        #expect(tokenizer.decode(ids) == "a</think><b")
        #expect(tokenizer.decode(ids, keeping: [try #require(tokenizer.controlToken("｜DSML｜"))]) == "a</think><｜DSML｜b")
        #expect(tokenizer.decode(ids, skippingSpecialTokens: false) == "<｜begin▁of▁sentence｜>a</think><｜DSML｜b")
    }

    @Test func `a special token inside a character does not break it`() {
        #expect(tokenizer.decode([0xC3, 300, 0xA9]) == "é")
    }

    @Test func `ids that no token has add nothing`() {
        #expect(tokenizer.decode([65, 299, 9999, -5, 66]) == "AB")
    }
}
