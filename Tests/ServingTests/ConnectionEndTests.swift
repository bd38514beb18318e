import Foundation
import ServerTesting
import Serving
import TestSupport
import Testing

/// The end of connections: what a client gets that is refused, byte by byte.
@Suite(.timeLimit(.minutes(15))) struct `A connection that ends` {
    /// Returns what a client receives that sends everything before it reads.
    private static func answer(_ server: ToyServer, _ head: String, body: [String] = []) async throws -> String {
        try await server.application.listening { port in
            let heard = Heard()
            try await RawConnection.open(port: port, isDeaf: true) { connection in
                try await connection.send(head)
                for part in body { try await connection.send(part) }
                connection.startListening()
                await heard.set(connection.receive())
                #expect(connection.isOver)
            }
            return await heard.text
        }
    }

    private actor Heard {
        var text = ""
        func set(_ text: String) { self.text = text }
    }

    private static let mebibyte = String(repeating: "x", count: 1 << 20)
    private static let chunk = "100000\r\n\(mebibyte)\r\n"

    /// Requests with bodies of 16 MiB that are refused: too large, without a route, or by their header.
    private static let refused = [
        ("/generate", "Host: localhost\r\nContent-Length: 16777216\r\n", mebibyte, 413),
        ("/generate", "Host: localhost\r\nTransfer-Encoding: chunked\r\n", chunk, 413),
        ("/nope", "Host: localhost\r\nContent-Length: 16777216\r\n", mebibyte, 404),
        ("/nope", "Host: localhost\r\nTransfer-Encoding: chunked\r\n", chunk, 404),
        ("/generate", "Content-Length: 16777216\r\n", mebibyte, 400),
        ("/generate", "Host: localhost\r\nno field\r\nContent-Length: 16777216\r\n", mebibyte, 400),
        ("/generate", "Host: localhost\r\nTransfer-Encoding: chunked\r\n", "zz\r\n" + mebibyte, 400),
    ]

    @Test(arguments: refused)
    func `gives the whole answer to a client that sends a large body before it reads`(
        path: String, fields: String, part: String, status: Int
    ) async throws {
        var server = ToyServer("x")
        server.configuration.maxBodyBytes = 1 << 20
        let text = try await Self.answer(
            server, "POST \(path) HTTP/1.1\r\n\(fields)\r\n", body: Array(repeating: part, count: 16))
        #expect(text.hasPrefix("HTTP/1.1 \(status) ") && text.hasSuffix("}"), "\(text.prefix(500))")
        #expect(text.components(separatedBy: "HTTP/1.1 ").count == 2, "one answer")
    }

    @Test func `answers the requests before one that is not valid, each in its turn`() async throws {
        let server = ToyServer("abc")
        server.engine.isHolding = true
        try await server.application.listening { port in
            try await RawConnection.open(port: port) { connection in
                try await connection.post("/generate", #"{"text":"a"}"#)
                try await connection.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nnonsense\r\n\r\n")
                #expect(await eventually { server.engine.runningCount == 1 })
                server.engine.isHolding = false
                let answers = await connection.receive().components(separatedBy: "HTTP/1.1 ")
                #expect(answers.count == 4, "\(answers)")
                #expect(answers[1].hasPrefix("200") && answers[1].contains(#""text": "abc""#))
                #expect(answers[2].hasPrefix("200") && answers[2].contains(#""status": "ok""#))
                #expect(answers[3].hasPrefix("400") && answers[3].lowercased().contains("connection: close"))
            }
        }
    }

    @Test(arguments: ["nonsense\r\n\r\n", "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
    func `gives no answer to what follows its last request`(rest: String) async throws {
        for last in ["HTTP/1.1\r\nHost: localhost\r\nConnection: close", "HTTP/1.0"] {
            let text = try await Self.answer(ToyServer("x"), "GET /health \(last)\r\n\r\n\(rest)")
            #expect(text.contains(" 200 OK\r\n") && text.hasSuffix(#"{"status": "ok"}"#), "\(text)")
        }
    }

    @Test func `says so if the client asks for another protocol, after which nothing can be read`() async throws {
        let text = try await Self.answer(
            ToyServer("x"),
            "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n")
        #expect(text.hasPrefix("HTTP/1.1 200") && text.lowercased().contains("connection: close"), "\(text)")
    }
}
