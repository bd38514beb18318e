import Foundation
import Inference
import JSON

/// Bodies that are no JSON, or JSON of a hostile shape: deep, wide, long, repeated, not UTF-8.
struct Bodies: AttackKind {
    static let name = "json"

    let port: Int
    let source: RequestSource

    func run(_ random: inout SeededGenerator) throws {
        let route = random.pick(source.routes)
        let valid = Array(route.body(route.base).utf8)
        let body: [UInt8]
        switch random.below(10) {
        case 0: body = Array(shape(&random).utf8)
        case 1:
            let name = random.pick(route.names)
            body = Array(route.body(route.base + [(name, shape(&random))]).utf8)
        case 2:
            guard let value = try? JSONValue(parsing: valid) else { return }
            body = Mutation.changed(Mutation.changed(value, &random), &random).pythonBytes
        case 3:
            body = Array(
                String(decoding: valid, as: UTF8.self).data(using: random.pick([.utf16, .utf32, .utf16BigEndian]))
                    ?? Data())
        default: body = Mutation.damaged(valid, &random)
        }
        try HTTPExchange.check(port: port, route.path, body)
    }

    private func shape(_ random: inout SeededGenerator) -> String {
        let count = 1 << random.below(15)
        switch random.below(9) {
        case 0: return String(repeating: "[", count: count)
        case 1: return String(repeating: "{\"a\":", count: count)
        case 2: return "[" + String(repeating: "0,", count: count) + "0]"
        case 3: return "{" + (0..<count).map { "\"\($0)\":0" }.joined(separator: ",") + "}"
        case 4: return "{" + Array(repeating: "\"a\":0", count: count).joined(separator: ",") + "}"
        case 5: return String(repeating: "9", count: count)
        case 6: return "\"" + String(repeating: "\\u0041", count: count) + "\""
        case 7: return String(repeating: " ", count: count) + "{}"
        default: return "1e" + String(repeating: "9", count: count)
        }
    }
}
