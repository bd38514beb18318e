import Foundation
import JSON
import TestSupport
import Testing

@Suite struct `JSON values` {
    @Test func `texts are written as Python writes them`() throws {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent(
            "Fixtures/json.json")
        let rows = try #require(try JSONValue(parsing: Data(contentsOf: file)).array)
        #expect(rows.count > 100)
        for row in rows {
            let text = try #require(row.array?[0].string)
            let expected = try #require(row.array?[1].string)
            #expect(try JSONValue(parsing: text).pythonBytes == Array(expected.utf8), "\(text)")
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
        _ = try JSONValue(parsing: nested(128))
        #expect(throws: JSONError.self) { try JSONValue(parsing: nested(129)) }
        #expect(throws: JSONError.self) { try JSONValue(parsing: String(repeating: "{\"a\":", count: 100_000)) }
        _ = try JSONValue(parsing: String(repeating: "9", count: 4300))
        #expect(throws: JSONError.self) { try JSONValue(parsing: String(repeating: "9", count: 4301)) }
    }

    @Test(arguments: [
        (#"{"a": [1, x]}"#, "line 1, column 11 (byte 10), in a[1]: expected a JSON value, found \"x]}\""),
        ("{\n \"é\": {\"b c\": [[],[0,\n{\"x\": 01}]]}}", "line 3, column 7 (byte 31), in [\"é\"][\"b c\"][1][1].x: "),
        ("[1, 2", "line 1, column 6 (byte 5): expected a comma or the end of the array, found the end"),
    ])
    func `an error says where, by line and by path`(text: String, expected: String) {
        let error = #expect(throws: JSONError.self) { try JSONValue(parsing: text) }
        #expect(error?.description.hasPrefix("invalid JSON at " + expected) == true, "\(error?.description ?? "")")
    }

    @Test func `the last value of equal keys counts, or the text is refused`() throws {
        var keys = (0..<30).map { "\"k\($0)\": \($0)" }
        keys.append("\"k3\": true")
        keys.append("\"\\u006b29\": null")
        let text = "{" + keys.joined(separator: ", ") + "}"
        let members = try #require(try JSONValue(parsing: text).object)
        #expect(members.count == 30 && members[3] == JSONMember("k3", .bool(true)) && members[29].value.isNull)
        let error = #expect(throws: JSONError.self) { try JSONValue(parsing: text, limits: .strict) }
        #expect(error?.problem == #"the key "k3" occurs twice"#)
        #expect(throws: JSONError.self) { try JSONValue(parsing: #"{"a": 1, "a": 1}"#, limits: .strict) }
    }

    @Test func `the members of one object are counted`() throws {
        var limits = JSONLimits()
        limits.maxMembers = 3
        _ = try JSONValue(parsing: #"[{"a": 1, "b": 2, "c": 3}, {"d": 4}]"#, limits: limits)
        let error = #expect(throws: JSONError.self) {
            try JSONValue(parsing: #"[{"a": 1, "b": 2, "c": 3, "d": 4}]"#, limits: limits)
        }
        #expect(error?.problem == "an object has more than 3 members")
    }

    @Test func `values are counted, keys too`() throws {
        var limits = JSONLimits()
        limits.maxValues = 7
        _ = try JSONValue(parsing: #"{"a": [1, 2], "b": 3}"#, limits: limits)
        let error = #expect(throws: JSONError.self) {
            try JSONValue(parsing: #"[[], [], [], [], [], [], []]"#, limits: limits)
        }
        #expect(error?.problem == "more than 7 values" && error?.path == "[6]")
        #expect(throws: JSONError.self) { try JSONValue(parsing: #"{"a": 1, "b": 2, "c": 3, "d": 4}"#, limits: limits) }
    }

    @Test func `reading can be given up`() throws {
        let text = "[" + String(repeating: "0,", count: 100_000) + "0]"
        var questions = 0
        #expect(throws: JSONError.self) {
            try JSONValue(parsing: text.utf8) {
                questions += 1
                return questions < 3
            }
        }
        #expect(questions == 3)
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
        #expect(JSONNumber(1.5)?.literal == "1.5" && JSONNumber(-3).literal == "-3" && JSONNumber(1.5)?.double == 1.5)
        #expect(try JSONValue(parsing: "-0").double?.sign == .minus)
    }

    @Test(
        arguments: [
            ("5", 5), ("5.0", 5), ("0.5e1", 5), ("500e-2", 5), ("-0.0", 0), ("0e99999999999999999999", 0), ("1e2", 100),
            ("9007199254740993.0", 9_007_199_254_740_993), ("9223372036854775807e0", Int.max),
            ("-9.223372036854775808e18", Int.min),
            ("9223372036854775808.0", nil), ("1e19", nil), ("5.5", nil), ("1e-1", nil), ("1e99999999999999999999", nil),
            ("5e-9223372036854775808", nil), ("0.001e3", 1),
        ] as [(String, Int?)])
    func `a whole number is one however it was written`(text: String, expected: Int?) throws {
        // The reader refuses numbers that no double can hold, but the arithmetic must handle them all the same.
        guard let value = try? JSONValue(parsing: text) else { return #expect(expected == nil) }
        #expect(value.wholeNumber == expected)
        guard case .number(let number) = value else { return }
        #expect(number.literal == text)
    }

    @Test func `what is written reads back as the same`() throws {
        var generator = SplitMix64(seed: 3)
        for _ in 0..<300 {
            let value = Self.random(depth: 0, &generator)
            #expect(try JSONValue(parsing: value.pythonText) == value)
        }
    }

    private static func random(depth: Int, _ generator: inout SplitMix64) -> JSONValue {
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

@Suite struct `A writer of JSON` {
    @Test func `gives the same piece by piece as at once`() throws {
        let value = try JSONValue(parsing: #"{"a": [1, [], {}, {"b": "x\n\u0001é"}], "c": null, "": -1.5e300}"#)
        var writer = JSONWriter()
        var bytes: [UInt8] = []
        writer.beginObject()
        writer.key("a")
        writer.beginArray()
        for element in try #require(value["a"]?.array) {
            writer.value(element)
            bytes += writer.takeBytes()
        }
        writer.endArray()
        writer.key("c")
        bytes += writer.takeBytes()
        writer.value(.null)
        writer.key("")
        writer.written(Array("-1.5e+300".utf8))
        writer.endObject()
        bytes += writer.takeBytes()
        #expect(bytes == value.pythonBytes)
        #expect(writer.bytes.isEmpty)
    }

    @Test func `gives a line to each member where people read it`() throws {
        var writer = JSONWriter(.indented)
        writer.value(try JSONValue(parsing: #"{"a": 1, "b": {}, "c": [], "d": {"e": [true, "x"]}}"#))
        let expected = """
            {
              "a": 1,
              "b": {},
              "c": [],
              "d": {
                "e": [
                  true,
                  "x"
                ]
              }
            }
            """
        #expect(String(decoding: writer.bytes, as: UTF8.self) == expected)
    }
}
