import Inference
import JSON

/// Changes of bytes and of JSON values, made at random.
enum Mutation {
    private static let splices = [
        "-1", "9223372036854775807", "18446744073709551616", "1e999", "-0", "[", "]", "{", "}", "\"", ",", ":", "null",
        "[[[[[[[[", "\\u0000", "\\ud800", "\\udc00\\ud800", "\u{FEFF}", "\u{0}", "\r\n", "\r\n\r\n", "__metadata__",
        "NaN",
        "\u{2028}", "é", "e\u{301}",
    ]

    /// Changes, removes, inserts, repeats or cuts off a few bytes.
    static func damaged(_ original: [UInt8], _ random: inout SeededGenerator) -> [UInt8] {
        var bytes = original
        for _ in 0...random.below(3) where !bytes.isEmpty {
            let place = random.below(bytes.count)
            switch random.below(8) {
            case 0: bytes[place] = UInt8(random.below(256))
            case 1: bytes[place] ^= 1 << UInt8(random.below(8))
            case 2: bytes.removeLast(bytes.count - place)
            case 3: bytes.removeSubrange(place..<min(bytes.count, place + 1 + random.below(8)))
            case 4: bytes.insert(contentsOf: random.pick(splices).utf8, at: place)
            case 5: bytes.insert(contentsOf: bytes[place..<min(bytes.count, place + 1 + random.below(40))], at: place)
            case 6:
                let other = random.below(bytes.count)
                bytes.swapAt(place, other)
            default: bytes.insert(UInt8(random.pick([0, 1, 0x7F, 0x80, 0xC0, 0xF5, 0xFF])), at: place)
            }
        }
        return bytes
    }

    /// Values that no member expects everywhere, made as JSON text so that numbers have any form.
    private static let values = [
        "null", "true", "false", "0", "-0", "1", "2", "-1", "0.5", "1e-300", "1e300", "1e999", "-1e999", "5.0", "1e2",
        "128", "129",
        "1024", "65536", "2147483647", "2147483648", "-2147483649", "9223372036854775807", "9223372036854775808",
        "-9223372036854775808", "-9223372036854775809", "18446744073709551616", "0.1e-400", "1e-5", "1e-38", "100",
        "-100",
        #""""#, #""a""#, #""0""#, #""-1""#, #""1e5""#, #""true""#, #""auto""#, #""\u0000""#, #""\ud83d\ude00""#,
        #""e\u0301""#,
        #""((((((((""#, #""(a*)*b""#, #""[a-z]{1,99999}""#, #""\\p{L}+""#, #""root ::= root""#,
        ##""root ::= \"a\" root""##, "[]", "[[]]",
        "[null]", "[0]", "[-1]", "[1, \"a\"]", "[[1], [2]]", #"["a", "b"]"#, #"[""]"#, "{}", #"{"a": 1}"#,
        #"{"0": 100}"#,
        #"{"type": "enabled"}"#, #"{"type": "json_object"}"#,
        #"{"type": "object", "properties": {"a": {"type": "string"}}}"#,
        ##"{"$ref": "#"}"##, ##"{"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#/a"}}}"##,
        #"{"pattern": "^(a|a)*$", "type": "string"}"#, #"{"type": "array", "minItems": 1000000000}"#,
        ##"{"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}"##, #"{"include_usage": true}"#,
        #"{"type": "function", "function": {"name": "f"}}"#,
        #"[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]"#,
        #"[{"role": "user", "content": "a"}]"#,
        #"[{"role": "tool", "content": "a", "tool_call_id": "x"}]"#,
        #"[{"role": "assistant", "content": null, "tool_calls": [{}]}]"#,
        #"[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]"#,
        #"[{"role": "assistant", "content": "x", "prefix": true}]"#,
    ]

    static func value(_ random: inout SeededGenerator) -> String {
        switch random.below(14) {
        case 0:
            return "\""
                + String(
                    repeating: random.pick(["a", " ", "\\n", "\\u00e9", "<｜User｜>", "\\\\"]),
                    count: 1 << random.below(14)) + "\""
        case 1:
            let depth = 1 << random.below(9)
            return String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
        case 2:
            return "[" + Array(repeating: random.pick(values), count: 1 + random.below(300)).joined(separator: ",")
                + "]"
        case 3: return "{\"\(random.below(2000))\": \(random.pick(values)), \"x\": \(random.pick(values))}"
        case 4: return String(random.next()) + random.pick(["", ".5", "e5", "e-5"])
        default: return random.pick(values)
        }
    }

    /// Replaces, removes, repeats or adds a value somewhere in a JSON value.
    static func changed(_ value: JSONValue, _ random: inout SeededGenerator) -> JSONValue {
        func hostile(_ random: inout SeededGenerator) -> JSONValue {
            (try? JSONValue(parsing: Mutation.value(&random))) ?? .integer(Int.max)
        }
        switch value {
        case .object(var members) where !members.isEmpty && !random.oneIn(12):
            let index = random.below(members.count)
            switch random.below(9) {
            case 0: members.remove(at: index)
            case 1: members.append(JSONMember(members[index].key + "x", hostile(&random)))
            case 2: members[index].value = hostile(&random)
            default: members[index].value = changed(members[index].value, &random)
            }
            return .object(members)
        case .array(var elements) where !elements.isEmpty && !random.oneIn(12):
            let index = random.below(elements.count)
            switch random.below(6) {
            case 0: elements.remove(at: index)
            case 1: elements.append(elements[index])
            case 2: elements[index] = hostile(&random)
            default: elements[index] = changed(elements[index], &random)
            }
            return .array(elements)
        case .number(let number) where !random.oneIn(3):
            let small = number.integer ?? 1
            return .integer(
                random.pick([
                    0, -1, 1, small &+ 1, small &- 1, small &* 2, small / 2, 0 &- small, small &* 1000, Int.max,
                ]))
        default: return hostile(&random)
        }
    }
}
