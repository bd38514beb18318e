import Foundation
import Inference
import JSON
import Serving

/// Valid small requests of every route that takes a body, from which hostile ones are made.
struct RequestSource: Sendable {
    struct Route: Sendable {
        var path: String
        /// The members of a valid request, as JSON text.
        var base: [(name: String, value: String)]
        /// All names that the route knows.
        var names: [String]
        /// The member whose own members are hostile too, and their names.
        var inner: (name: String, names: [String])?

        func body(_ members: [(name: String, value: String)]) -> String {
            "{" + members.map { "\(JSONValue.string($0.name).pythonText): \($0.value)" }.joined(separator: ", ") + "}"
        }
    }

    let routes: [Route]

    init(model: String) {
        let model = JSONValue.string(model).pythonText
        let chat = [("model", model), ("messages", #"[{"role": "user", "content": "Hello"}]"#)]
        let known: [String: (base: [(String, String)], inner: (String, String)?)] = [
            "/v1/completions": (
                [("model", model), ("prompt", #""Once upon a""#), ("max_tokens", "2"), ("temperature", "0")],
                ("stream_options", "stream_options")
            ),
            "/v1/chat/completions": (
                chat + [("max_tokens", "2"), ("temperature", "0")], ("stream_options", "stream_options")
            ),
            "/v1/messages": (chat + [("max_tokens", "2")], nil),
            "/v1/messages/count_tokens": (chat, nil),
            "/v1/responses": ([("model", model), ("input", #""Hello""#), ("max_output_tokens", "16")], nil),
            "/generate": (
                [("text", #""Once upon a""#), ("sampling_params", #"{"max_new_tokens": 2}"#)],
                ("sampling_params", "sampling")
            ),
            "/tokenize": ([("prompt", #""Once upon a""#)], nil),
            "/detokenize": ([("tokens", "[5, 6, 7]")], nil),
        ]
        var routes: [Route] = []
        for route in RequestInterface.routes where route.method == "POST" && !Self.excluded.contains(route.path) {
            let (base, inner) = known[route.path] ?? ([], nil)
            let names = route.place.map(RequestInterface.members) ?? []
            routes.append(
                Route(
                    path: route.path, base: base.map { ($0.0, $0.1) }, names: names.isEmpty ? ["model"] : names,
                    inner: inner.map { ($0.0, RequestInterface.members(at: $0.1)) }))
        }
        self.routes = routes
    }

    /// Routes whose purpose is to end other clients' requests.
    private static let excluded = ["/abort_request"]
}

extension HTTPExchange {
    /// Sends a JSON body to a route and checks the answer: a status below 500, an error in OpenAI's form, a stream that
    /// ends without a server's error, and a connection that then still answers.
    ///
    /// - Parameter patience: the time after which the client hangs up; a long answer is no fault.
    /// - Returns: the status, or `nil` if the client hung up.
    @discardableResult
    static func check(port: Int, _ path: String, _ body: [UInt8], patience: Duration = .seconds(4)) throws -> Int? {
        let exchange: HTTPExchange
        do {
            exchange = try HTTPExchange(port: port)
        } catch {
            throw Finding("\(error)")
        }
        exchange.send("POST", path, body)
        do {
            let reply = try exchange.reply(within: patience)
            if reply.status >= 500 { throw Finding("status \(reply.status): \(reply.text.prefix(300))") }
            if reply.status >= 400 {
                guard reply.json?["error"]?["message"]?.string?.isEmpty == false else {
                    throw Finding("status \(reply.status) without an error's message: \(reply.text.prefix(300))")
                }
            }
            if reply.status == 200, reply.text.contains("\"type\": \"server_error\"") {
                throw Finding("a stream has a server's error: \(reply.text.suffix(300))")
            }
            if !reply.head.closes { try exchange.checkHealth() }
            return reply.status
        } catch Failure.timeout {
            // The client hangs up, and with it goes its generation.
            return nil
        } catch let failure as Failure {
            throw Finding("\(failure)")
        }
    }
}

extension HTTPExchange {
    /// Asks for `/health` on this connection, which must be answered, and the connection then closed.
    func checkHealth() throws {
        send("GET", "/health", headers: "Connection: close\r\n")
        do {
            let health = try reply(within: Patience.answer)
            guard health.status == 200 else { throw Finding("/health has status \(health.status): \(health.text)") }
            try end(until: .now + Patience.answer)
        } catch let failure as Failure {
            throw Finding("/health: \(failure)")
        }
    }
}

extension RequestSource {
    /// The paths of all routes.
    static var targets: [String] {
        Set(RequestInterface.routes.map { $0.path.replacingOccurrences(of: "**", with: "demo") }).sorted()
    }
}
