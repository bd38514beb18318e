import Foundation
import Inference

/// Connections that are slow, idle, half closed, reset, many, or never read.
struct Connections: AttackKind {
    static let name = "connections"

    let port: Int
    let model: String
    /// The number of connections that this process may hold open.
    let maxConnections: Int

    func run(_ random: inout SeededGenerator) throws {
        do {
            switch random.below(60) {
            // Beyond 3,072 connections from one address the server closes the oldest that has sent no request, and the
            // other clients of this attack have the same address.
            case 0: try many(min(2500, maxConnections), &random)
            case 1...5: try many(min(30 + random.below(300), maxConnections), &random)
            case 6...15: try slowHeader(&random)
            case 16...22: try halfClosed(&random)
            case 23...29: try cutBody(&random)
            case 30...36: try leftStream(&random)
            case 37...43: try pipelined(&random)
            case 44...47: try slowBody(&random)
            case 48...54: try resets(&random)
            default: try unread(&random)
            }
            try health()
        } catch let failure as HTTPExchange.Failure {
            throw Finding("\(failure)")
        } catch let failure as RawSocket.ConnectFailure {
            throw Finding("\(failure)")
        }
    }

    /// A new connection must be served, whatever the others do.
    private func health() throws { try HTTPExchange(port: port).checkHealth() }

    private func many(_ count: Int, _ random: inout SeededGenerator) throws {
        var sockets: [RawSocket] = []
        let starts = [
            "", "G", "GET /health HTTP/1.1\r\nHost: localhost\r\nX: ",
            "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
        ]
        let start = random.pick(starts)
        for _ in 0..<count {
            let socket = try RawSocket(port: port)
            socket.send(start)
            sockets.append(socket)
        }
        try health()
        if random.below(2) == 0 { for socket in sockets { socket.reset() } }
    }

    private func slowHeader(_ random: inout SeededGenerator) throws {
        let socket = try RawSocket(port: port)
        for byte in "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: yes".utf8.prefix(1 + random.below(50)) {
            guard socket.send([byte]) else { return }
            usleep(UInt32(random.below(3000)))
        }
        if random.below(2) == 0 { socket.reset() }
    }

    /// A client that closes its sending side has left: its connection must end.
    private func halfClosed(_ random: inout SeededGenerator) throws {
        let exchange = try HTTPExchange(port: port)
        exchange.send(
            "POST", "/v1/completions", completion(tokens: 1 + random.below(2000), isStream: random.below(2) == 0))
        usleep(UInt32(random.below(60_000)))
        exchange.socket.halfClose()
        let deadline = ContinuousClock.now + Patience.answer
        while true {
            switch exchange.socket.receive(until: deadline) {
            case .bytes: continue
            case .end: return
            case .timeout: throw Finding("a half-closed connection is still open after \(Patience.answer)")
            }
        }
    }

    private func cutBody(_ random: inout SeededGenerator) throws {
        let exchange = try HTTPExchange(port: port)
        let body = completion(tokens: 2, isStream: false)
        let sent = random.below(body.count)
        exchange.socket.send(
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: \(body.count)\r\n\r\n"
        )
        exchange.socket.send(body.prefix(sent))
        usleep(UInt32(random.below(20_000)))
        if random.below(2) == 0 { exchange.socket.reset() }
    }

    private func leftStream(_ random: inout SeededGenerator) throws {
        let exchange = try HTTPExchange(port: port)
        exchange.send("POST", "/v1/completions", completion(tokens: 3000, isStream: true))
        let deadline = ContinuousClock.now + .seconds(5)
        do throws(HTTPExchange.Failure) {
            let head = try exchange.head(until: deadline)
            guard head.status == 200 || head.status == 429 else { throw .malformed("status \(head.status)") }
            for _ in 0..<random.below(6) { _ = try exchange.bodyPart(until: deadline) }
        } catch {
            // A busy server may take longer.
            guard case .timeout = error else { throw error }
        }
        if random.below(2) == 0 { exchange.socket.reset() }
    }

    private func pipelined(_ random: inout SeededGenerator) throws {
        let exchange = try HTTPExchange(port: port)
        let requests = (0..<1 + random.below(40)).map { _ in
            random.pick([
                ("GET", "/health", 200), ("HEAD", "/health", 200), ("GET", "/nope", 404), ("DELETE", "/health", 405),
            ])
        }
        let text = requests.map { "\($0.0) \($0.1) HTTP/1.1\r\nHost: localhost\r\n\r\n" }.joined()
        exchange.socket.send(text)
        for (method, path, status) in requests {
            let reply = try exchange.reply(toHead: method == "HEAD", within: Patience.answer)
            guard reply.status == status else {
                throw Finding("\(method) \(path), pipelined, has status \(reply.status) instead of \(status)")
            }
        }
    }

    private func slowBody(_ random: inout SeededGenerator) throws {
        let exchange = try HTTPExchange(port: port)
        let body = Array(#"{"prompt": "abc"}"#.utf8)
        exchange.socket.send("POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: \(body.count)\r\n\r\n")
        for byte in body {
            guard exchange.socket.send([byte]) else { break }
            usleep(UInt32(random.below(8000)))
        }
        let reply = try exchange.reply(within: Patience.answer)
        guard reply.status == 200 || reply.status == 429 else {
            throw Finding("a slow body has status \(reply.status)")
        }
    }

    private func resets(_ random: inout SeededGenerator) throws {
        for _ in 0..<1 + random.below(100) {
            let socket = try RawSocket(port: port)
            if random.below(2) == 0 { socket.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n") }
            socket.reset()
        }
    }

    /// A client that does not read its stream.
    private func unread(_ random: inout SeededGenerator) throws {
        let exchange = HTTPExchange(try RawSocket(port: port, receiveBuffer: 1024))
        exchange.send("POST", "/v1/completions", completion(tokens: 200, isStream: true))
        usleep(UInt32(random.below(300_000)))
        if random.below(2) == 0 { exchange.socket.reset() }
    }

    private func completion(tokens: Int, isStream: Bool) -> [UInt8] {
        Array(
            #"""
            {"model": "\#(model)", "prompt": "Once upon a time", "max_tokens": \#(tokens), "stream": \#(isStream), \#
            "ignore_eos": true, "logprobs": 2}
            """#.utf8)
    }
}
