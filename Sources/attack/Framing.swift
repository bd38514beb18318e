import Inference

/// Requests that are no HTTP, or barely: methods, targets, versions, header fields, lengths and codings of bodies.
struct Framing: AttackKind {
    static let name = "framing"

    let port: Int
    let targets: [String]

    func run(_ random: inout SeededGenerator) throws {
        let (request, isHead, isIntact) = request(&random)
        let exchange: HTTPExchange
        do {
            exchange = try HTTPExchange(port: port)
        } catch {
            throw Finding("\(error)")
        }
        let pieces = random.oneIn(8) ? 1 + random.below(20) : 1
        for piece in 0..<pieces {
            let range = request.count * piece / pieces..<request.count * (piece + 1) / pieces
            guard exchange.socket.send(request[range]) else { break }
        }
        let endsSending = random.below(3) > 0
        if endsSending { exchange.socket.halfClose() }
        // A request that is not complete may wait for its rest; one that never comes must end the connection.
        var replies = 0
        do throws(HTTPExchange.Failure) {
            while true {
                let limit = endsSending ? Patience.answer : .milliseconds(150)
                let reply = try exchange.reply(toHead: isHead && replies == 0, within: limit)
                replies += 1
                try Self.check(reply, request)
                // What is no HTTP has no method either: its refusal has a body, and ends the connection.
                if isHead, reply.status == 400 || reply.status == 431, reply.head.closes { return }
                if reply.head.closes || replies == 64 { break }
            }
            if endsSending { try exchange.end(until: .now + Patience.answer) }
        } catch {
            switch error {
            case .malformed(let problem):
                // After a damaged request it is not known which responses have no body.
                if isIntact || !Self.mayBeHead(request) { throw Finding("malformed response: \(problem)") }
            case .timeout:
                if endsSending {
                    throw Finding("the connection is still open \(Patience.answer) after the client's end")
                }
            case .closed, .cut: break  // That is an answer to garbage.
            }
        }
    }

    private static func mayBeHead(_ request: [UInt8]) -> Bool {
        String(decoding: request, as: UTF8.self).contains("HEAD")
    }

    private static func check(_ reply: HTTPExchange.Reply, _ request: [UInt8]) throws(HTTPExchange.Failure) {
        // 505 is the answer to another version of HTTP, and the client's fault.
        if reply.status >= 500, reply.status != 505 {
            throw .malformed("status \(reply.status): \(reply.text.prefix(300))")
        }
    }

    // MARK: - Generating

    private static let methods = [
        "GET", "GET", "POST", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT", "PRI", "get", "",
        "G T", "M-SEARCH", "POST\t", "\u{0}", String(repeating: "X", count: 9000),
    ]
    private static let versions = [
        "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.2", "http/1.1", "",
        "HTTP/1.1 ", "HTTP/11", "HTTP/1.", "HTTP/99999999999999999999.1", "ICY/1.0",
    ]
    private static let hosts = [
        "Host: localhost", "Host: localhost", "Host: localhost", "Host: 127.0.0.1:80", "Host: [::1]",
        "Host: evil.example",
        "Host:", "Host: localhost\r\nHost: localhost", "", "Host : localhost", "Host: localhost:99999999999",
        "host:localhost", "Host: \u{0}", "Host: a b", "Host: [", "Host: ]", "Host: :", "Host: localhost,localhost",
    ]
    private static let lengths = [
        "Content-Length: 0", "Content-Length: -1", "Content-Length: +5", "Content-Length: 5, 5", "Content-Length: 5, 6",
        "Content-Length: 9223372036854775807", "Content-Length: 9223372036854775808", "Content-Length: 1e3",
        "Content-Length: 0x10", "Content-Length:", "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 50", "Content-Length: 33554433", "Content-Length: 00000000000000000005",
        "Content-Length: ５", "Content-Length: 5 5", "Content-Length: 99999999999999999999999999",
    ]
    private static let codings = [
        "chunked", "Chunked", " chunked ", "xchunked", "chunked, chunked", "gzip, chunked", "chunked, identity",
        "identity",
        "", "chunked;q=1", "\"chunked\"", "chunked\r\nTransfer-Encoding: chunked", "gzip\r\nTransfer-Encoding: chunked",
        "chunked\r\nContent-Length: 5",
    ]
    private static let extras = [
        "Connection: close", "Connection: Close", "Connection: keep-alive", "Connection: upgrade\r\nUpgrade: websocket",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        "Expect: 100-continue",
        "Expect: 200-maybe", "Content-Type: text/plain", "Content-Type: application/json; charset=utf-16",
        "Content-Type: multipart/form-data; boundary=x", "Authorization: Bearer", "Authorization: Basic eDp5",
        "Origin: http://evil.example", "Origin: null", "Accept-Encoding: gzip, br", "Content-Encoding: gzip",
        "TE: trailers",
        "Trailer: X", "X: \u{0}", "X: a\r\n b", "X\u{1}: y", ": empty", "X", "X: \u{e9}",
        "Cookie: " + String(repeating: "a", count: 9000),
        "X: " + String(repeating: "b", count: 17000), "Range: bytes=0-1", "If-None-Match: *", "Transfer-Encoding",
        String(repeating: "A: b\r\n", count: 150) + "A: b", "Keep-Alive: timeout=999999", "Max-Forwards: 0",
        "X-Forwarded-For: ::ffff:1.2.3.4", "Proxy-Connection: close", "Content-Type: \u{ff}",
    ]
    private static let bodies = [
        "", "{}", "[]", "null", #"{"prompt": "a"}"#, #"{"model": "demo", "prompt": "a", "max_tokens": 1}"#,
        #"{"text": "a", "sampling_params": {"max_new_tokens": 1}}"#, #"{"tokens": [1, 2]}"#, "\u{0}",
        "GET / HTTP/1.1\r\n\r\n",
    ]
    private static let sizes = [
        "0", "-1", "zz", "ffffffffffffffff", "7fffffffffffffff", "10000000000000000", "1;ext=1", "1 ", " 1", "0x1", "",
        "+1",
        "5;" + String(repeating: "e", count: 20000), "1\n", "2\r", "1;\u{0}",
    ]
    private static let trailers = [
        "", "X: y\r\n", "Content-Length: 5\r\n", "X: " + String(repeating: "t", count: 20000) + "\r\n",
        "Host: evil\r\n",
        "no colon\r\n", String(repeating: "A: b\r\n", count: 3000),
    ]

    /// Returns a request, whether it is a HEAD, and whether its parts are as they were generated.
    private func request(_ random: inout SeededGenerator) -> (bytes: [UInt8], isHead: Bool, isIntact: Bool) {
        let method = random.below(3) == 0 ? random.pick(Self.methods) : random.pick(["GET", "POST", "HEAD"])
        let target = target(&random)
        let version = random.oneIn(5) ? random.pick(Self.versions) : "HTTP/1.1"
        var fields = [random.oneIn(4) ? random.pick(Self.hosts) : "Host: localhost"]
        for _ in 0..<random.below(4) where random.below(2) == 0 { fields.append(random.pick(Self.extras)) }
        let body = random.pick(Self.bodies)
        var payload = Array(body.utf8)
        switch random.below(6) {
        case 0: fields.append(random.pick(Self.lengths))
        case 1, 2:
            fields.append("Transfer-Encoding: \(random.pick(Self.codings))")
            payload = chunked(body, &random)
        case 3: break
        default:
            let claimed = random.oneIn(4) ? max(0, payload.count + random.below(9) - 4) : payload.count
            fields.append("Content-Length: \(claimed)")
        }
        fields.removeAll { $0.isEmpty }
        fields.shuffle(using: &random)
        let ending = random.oneIn(20) ? "\n" : "\r\n"
        var bytes = Array("\(method) \(target) \(version)\(ending)\(fields.map { $0 + ending }.joined())\(ending)".utf8)
        bytes += payload
        if random.oneIn(6) { bytes += bytes }
        var isIntact = true
        if random.oneIn(4) {
            isIntact = false
            bytes = Mutation.damaged(bytes, &random)
        }
        return (bytes, method == "HEAD", isIntact)
    }

    private func target(_ random: inout SeededGenerator) -> String {
        let path = random.pick(targets)
        switch random.below(12) {
        case 0: return "http://localhost" + path
        case 1:
            return path + "?"
                + random.pick(["x=%zz", "%00", String(repeating: "q", count: 20000), "a=1&a=2", "?", "#"])
        case 2:
            return random.pick([
                "*", "/", "//", "", "/%00", "/%ff%fe", "/v1/models/..%2f..%2fetc", "/../../health", "/v1//completions",
                "localhost:80", "http://", "http://[::1", "/\u{e9}", "/" + String(repeating: "a", count: 15000),
                "/health/",
                "health", "/v1/models/" + String(repeating: "%41", count: 500), "\\health", "/HEALTH", "/health%20",
            ])
        default: return path
        }
    }

    private func chunked(_ body: String, _ random: inout SeededGenerator) -> [UInt8] {
        var text = ""
        for character in body where !random.oneIn(30) {
            let piece = String(character)
            let size = random.oneIn(25) ? random.pick(Self.sizes) : String(piece.utf8.count, radix: 16)
            text += "\(size)\r\n\(piece)\(random.oneIn(40) ? "" : "\r\n")"
        }
        if !random.oneIn(8) { text += "0\r\n\(random.oneIn(3) ? random.pick(Self.trailers) : "")\r\n" }
        return Array(text.utf8)
    }
}
