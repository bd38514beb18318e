import Foundation
import Testing
import Tokenization

@Suite struct `JSON values` {
    @Test func `texts are written as Python writes them`() throws {
        for row in try Fixtures.rows("json.json") {
            let text = try #require(row.array?[0].string)
            let expected = try #require(row.array?[1].string)
            #expect(scalars(try JSONValue(parsing: text).pythonText) == scalars(expected), "\(text)")
        }
    }

    @Test(arguments: [
        "", " ", "nul", "tru", "NaN", "Infinity", "-Infinity", "+1", "01", "1.", ".5", "1e", "1e+", "--1", "-", "0x1",
        "'a'",
        "\"", "\"a", "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u12G4\"", "\"\u{0}\"", "\"\n\"", "[", "[1", "[1,", "[1,]",
        "[,]",
        "[1 2]", "{", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,", "{\"a\":1,}", "{a:1}", "{1:1}", "{\"a\" 1}", "1 2",
        "[] x", "// c\n1", "\u{FEFF}1", "\"\\ud800\"", "\"\\ud800\\u0041\"", "\"\\udc00\"", "\"\\ud800\\ud800\"",
        "1e400",
        "-1e400", "\u{B}1", "\u{A0}1", "\u{661}",
    ])
    func `what is no JSON is refused`(text: String) {
        #expect(throws: JSONError.self) { try JSONValue(parsing: text) }
    }

    @Test func `bytes that are no UTF-8 are refused`() {
        #expect(throws: JSONError.self) { try JSONValue(parsing: [0x22, 0xFF, 0x22]) }
        #expect(throws: JSONError.self) { try JSONValue(parsing: [0x22, 0xED, 0xA0, 0x80, 0x22]) }
    }

    @Test func `nesting and numbers have limits`() throws {
        func nested(_ depth: Int) -> String {
            String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
        }
        _ = try JSONValue(parsing: nested(JSONValue.depthLimit + 1))
        #expect(throws: JSONError.self) { try JSONValue(parsing: nested(JSONValue.depthLimit + 2)) }
        #expect(throws: JSONError.self) { try JSONValue(parsing: String(repeating: "{\"a\":", count: 100_000)) }
        _ = try JSONValue(parsing: String(repeating: "9", count: 4300))
        #expect(throws: JSONError.self) { try JSONValue(parsing: String(repeating: "9", count: 4301)) }
    }

    @Test func `an error says where`() {
        let error = #expect(throws: JSONError.self) { try JSONValue(parsing: #"{"a": [1, x]}"#) }
        #expect(error?.description == "invalid JSON at byte 10: a value is expected")
    }

    @Test func `canonically equivalent strings are different`() throws {
        let value = try JSONValue(parsing: "{\"\u{E9}\": 1, \"e\u{301}\": 2}")
        #expect(value.object?.count == 2 && value["\u{E9}"]?.integer == 1 && value["e\u{301}"]?.integer == 2)
        #expect(JSONValue.string("\u{E9}") != JSONValue.string("e\u{301}"))
    }

    @Test func `integers are read exactly or not at all`() throws {
        #expect(try JSONValue(parsing: "9223372036854775807").integer == Int.max)
        #expect(try JSONValue(parsing: "9223372036854775808").integer == nil)
        #expect(try JSONValue(parsing: "1.0").integer == nil && JSONValue(parsing: "1e2").integer == nil)
        #expect(JSONNumber(Double.nan) == nil && JSONNumber(-Double.infinity) == nil)
        #expect(JSONNumber(1.5)?.text == "1.5" && JSONNumber(-3).text == "-3" && JSONNumber(1.5)?.double == 1.5)
    }

    @Test func `what is written reads back as the same`() throws {
        var generator = SplitMix(state: 3)
        for _ in 0..<300 {
            let value = Self.random(depth: 0, &generator)
            #expect(try JSONValue(parsing: value.pythonText) == value)
        }
    }

    private static func random(depth: Int, _ generator: inout SplitMix) -> JSONValue {
        func text() -> String {
            let scalars: [Unicode.Scalar] = [
                "a", "\"", "\\", "\n", "\u{1}", "é", "\u{301}", "😀", "\u{2028}", "/", "\u{7F}",
            ]
            var text = String.UnicodeScalarView()
            for _ in 0..<Int.random(in: 0..<6, using: &generator) {
                text.append(scalars.randomElement(using: &generator)!)
            }
            return String(text)
        }
        switch Int.random(in: 0..<(depth < 4 ? 8 : 6), using: &generator) {
        case 0: return .null
        case 1: return .bool(.random(using: &generator))
        case 2: return .number(JSONNumber(Int.random(in: .min ... .max, using: &generator)))
        case 3: return .number(JSONNumber(Double.random(in: -1e20...1e20, using: &generator))!)
        case 4, 5: return .string(text())
        case 6:
            return .array(
                (0..<Int.random(in: 0..<4, using: &generator)).map { _ in random(depth: depth + 1, &generator) })
        default:
            return .object(
                (0..<Int.random(in: 0..<4, using: &generator)).map {
                    JSONMember("\($0)" + text(), random(depth: depth + 1, &generator))
                })
        }
    }
}

/// A small generator with a seed, so that a failing case comes again.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = (state ^ state >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed >> 31
    }
}
