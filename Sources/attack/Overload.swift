import Foundation
import Inference

/// More work than the server can do: many and large requests at the same time, many choices, large bodies, and clients
/// that leave.
struct Overload: AttackKind {
    static let name = "overload"

    let port: Int
    let model: String

    func run(_ random: inout SeededGenerator) throws {
        var exchanges: [HTTPExchange] = []
        do throws(RawSocket.ConnectFailure) {
            for _ in 0..<1 + random.below(16) {
                let exchange = try HTTPExchange(port: port)
                let (path, body) = request(&random)
                exchange.send("POST", path, body)
                exchanges.append(exchange)
            }
        } catch {
            throw Finding("\(error)")
        }
        exchanges.shuffle(using: &random)
        for exchange in exchanges {
            if random.oneIn(3) {
                usleep(UInt32(random.below(20_000)))
                exchange.socket.reset()
                continue
            }
            do throws(HTTPExchange.Failure) {
                let reply = try exchange.reply(within: .milliseconds(50 + random.below(700)))
                let isServerError = reply.status == 200 && reply.text.contains("\"type\": \"server_error\"")
                guard reply.status < 500, !isServerError else {
                    throw .malformed("status \(reply.status): \(reply.text.suffix(300))")
                }
            } catch {
                // The client is impatient, and leaves.
                guard case .timeout = error else { throw Finding("\(error)") }
            }
        }
    }

    private func request(_ random: inout SeededGenerator) -> (path: String, body: [UInt8]) {
        let model = "\"model\": \"\(model)\""
        func body(_ members: String...) -> [UInt8] { Array("{\(members.joined(separator: ", "))}".utf8) }
        let ids = random.tokens(1 + random.below(2000), vocabularySize: 1000)
        let prompt = "\"prompt\": \(ids)"
        switch random.below(10) {
        case 0:
            let text = String(repeating: random.pick([" ", "a", "é", "1"]), count: 1 << (12 + random.below(10)))
            return ("/tokenize", body("\"prompt\": \"\(text)\""))
        case 1:
            return (
                "/detokenize", body("\"tokens\": \(random.tokens(1 << (8 + random.below(8)), vocabularySize: 1000))")
            )
        case 2: return ("/v1/completions", body(model, prompt, "\"n\": \(1 + random.below(128))", "\"max_tokens\": 20"))
        case 3:
            return (
                "/v1/completions",
                body(
                    model, prompt, "\"n\": \(1 + random.below(8))", "\"max_tokens\": 4", "\"echo\": true",
                    "\"logprobs\": 20")
            )
        case 4:
            let messages = Array(
                repeating: #"{"role": "user", "content": "Once upon a time"}"#, count: 1 + random.below(500))
            return (
                "/v1/chat/completions",
                body(model, "\"messages\": [\(messages.joined(separator: ","))]", "\"max_tokens\": 8")
            )
        case 5:
            return (
                "/tokenize",
                body("\"prompt\": [\(Array(repeating: "\"\"", count: 1 << random.below(18)).joined(separator: ","))]")
            )
        case 6:
            return (
                "/generate",
                body(
                    "\"input_ids\": \(Array(repeating: ids.prefix(100), count: 1 + random.below(60)).map(Array.init))",
                    "\"sampling_params\": {\"max_new_tokens\": 8, \"n\": \(1 + random.below(4))}")
            )
        default:
            return (
                "/v1/completions",
                body(
                    model, prompt, "\"max_tokens\": \(1 + random.below(400))", "\"stream\": \(random.below(2) == 0)",
                    "\"ignore_eos\": true", "\"temperature\": 1")
            )
        }
    }
}
