import Foundation
import HTTPTypes
import Hummingbird
import Inference
import JSON
import ServerTesting
import Serving
import TestSupport
import Testing

/// Tests of the server's own page: its files, who may read what, and the figures that it shows.
@Suite struct PageTests {
    private static let key = "secret-key-123"
    private static let files: [(path: String, type: String)] = [
        ("/", "text/html; charset=utf-8"), ("/page/page.css", "text/css; charset=utf-8"),
        ("/page/page.js", "text/javascript; charset=utf-8"), ("/page/server.js", "text/javascript; charset=utf-8"),
        ("/page/elements.js", "text/javascript; charset=utf-8"), ("/page/chat.js", "text/javascript; charset=utf-8"),
        ("/page/answer.js", "text/javascript; charset=utf-8"), ("/page/ranks.js", "text/javascript; charset=utf-8"),
        ("/page/timeline.js", "text/javascript; charset=utf-8"), ("/page/icon.svg", "image/svg+xml"),
    ]
    private static let figures = ["/page/ranks", "/page/timeline", "/page/layout.svg"]

    private static func server(key: String? = nil) -> ToyServer {
        var server = ToyServer("x")
        server.configuration.apiKeys = [key].compactMap(\.self)
        server.configuration.drawing = LayoutDrawing(svg: "<svg/>", colours: ["#aabbcc", "#ddeeff"])
        return server
    }

    // MARK: - Files

    @Test(arguments: files) func `files have a type, a content policy and a tag`(
        _ path: String, _ type: String
    ) async throws {
        let reply = try await Self.server().send(.get, path)
        #expect(reply.status == 200 && !reply.text.isEmpty)
        #expect(reply.header("Content-Type") == type)
        #expect(reply.header("X-Content-Type-Options") == "nosniff")
        #expect(reply.header("X-Frame-Options") == "DENY")
        #expect(reply.header("Referrer-Policy") == "no-referrer")
        #expect(reply.header("Cache-Control") == "no-cache")
        let policy = try #require(reply.header("Content-Security-Policy"))
        #expect(policy.hasPrefix("default-src 'self';"))
        for word in ["unsafe", "*", "http"] { #expect(!policy.contains(word)) }
        #expect(policy.contains("frame-ancestors 'none'") && policy.contains("require-trusted-types-for 'script'"))

        let tag = try #require(reply.header("ETag"))
        let again = try await Self.server().send(.get, path, headers: [.ifNoneMatch: tag])
        #expect(again.status == 304 && again.text.isEmpty && again.header("ETag") == tag)
        let other = try await Self.server().send(.get, path, headers: [.ifNoneMatch: "\"0\""])
        #expect(other.status == 200)
    }

    @Test(arguments: files) func `HEAD has the header of GET and no body`(_ path: String, _ type: String) async throws {
        let get = try await Self.server().send(.get, path)
        let head = try await Self.server().send(.head, path)
        #expect(head.status == 200 && head.text.isEmpty)
        for name in ["Content-Type", "Content-Length", "Content-Security-Policy", "ETag"] {
            #expect(head.header(name) == get.header(name) && get.header(name) != nil)
        }
        #expect(get.header("Content-Length") == "\(get.text.utf8.count)")
    }

    @Test(arguments: files) func `files load nothing from elsewhere and build no elements from text`(
        _ path: String, _ type: String
    ) async throws {
        let text = try await Self.server().send(.get, path).text
            .replacingOccurrences(of: "http://www.w3.org/2000/svg", with: "")
        for word in [
            "http:", "https:", "//cdn", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
        ] {
            #expect(!text.contains(word), "\(path) has \(word)")
        }
        // What the content policy would refuse anyhow.
        for word in ["<script>", " style=\"", " onclick", "javascript:"] { #expect(!text.contains(word)) }
    }

    @Test func `every file that the page names is served`() async throws {
        let server = Self.server()
        var open = ["/"]
        var seen: Set<String> = []
        while let path = open.popLast() {
            guard seen.insert(path).inserted else { continue }
            let reply = try await server.send(.get, path)
            #expect(reply.status == 200, "\(path)")
            for match in reply.text.matches(of: /(?:href|src)="(page\/[a-z.]+)"|from '\.\/([a-z.]+)'/) {
                open.append(match.output.1.map { "/\($0)" } ?? "/page/\(match.output.2!)")
            }
        }
        #expect(seen == Set(Self.files.map(\.path)))
    }

    @Test func `a wrong method is a 405`() async throws {
        let reply = try await Self.server().send(.post, "/", "{}")
        #expect(reply.status == 405 && reply.header("Allow") == "GET, HEAD")
    }

    @Test func `a page of another origin that has a name for this machine does not get it`() async throws {
        try await Self.server().application.listening { port in
            for path in Self.files.map(\.path) + Self.figures {
                for (host, status) in [("attacker.example", "403"), ("", "403"), ("localhost:\(port)", "200")] {
                    try await RawConnection.open(port: port) { connection in
                        try await connection.send("GET \(path) HTTP/1.1\r\nHost: \(host)\r\nConnection: close\r\n\r\n")
                        let answer = await connection.receive()
                        #expect(answer.hasPrefix("HTTP/1.1 \(status) "), "\(path) for \(host)")
                    }
                }
            }
        }
    }

    // MARK: - Access

    @Test func `the page needs no key, its figures do`() async throws {
        let server = Self.server(key: Self.key)
        for path in Self.files.map(\.path) + ["/?x=1"] {
            let reply = try await server.send(.get, path)
            #expect(reply.status == 200 && !reply.text.contains(Self.key))
            #expect(try await server.send(.head, path).status == 200)
            for method in [HTTPRequest.Method.post, .put, .delete, .options] {
                #expect(try await server.send(method, path, "{}").status == 401, "\(method) \(path)")
            }
        }
        for path in Self.figures {
            #expect(try await server.send(.get, path).status == 401)
            #expect(try await server.send(.head, path).status == 401)
            let headers: HTTPFields = [.authorization: "Bearer \(Self.key)"]
            #expect(try await server.send(.get, path, headers: headers).status == 200)
        }
        for path in [
            "//", "/page", "/page/", "/page/../metrics", "/page/page.js/", "/page//page.js", "/%70age/page.js",
        ] {
            #expect(try await server.send(.get, path).status == 401, "\(path)")
        }
    }

    @Test func `a server without it has no such routes`() async throws {
        var server = Self.server()
        server.configuration.hasPage = false
        for path in Self.files.map(\.path) + Self.figures {
            for method in [HTTPRequest.Method.get, .post] {
                let reply = try await server.send(method, path)
                #expect(reply.status == 404 && reply.code == "not_found", "\(path)")
            }
        }
        let document = try await server.send(.get, "/openapi.json").json
        #expect(document["paths"]?["/"] == nil && document["paths"]?["/page/ranks"] == nil)
        #expect(try await Self.server().send(.get, "/openapi.json").json["paths"]?["/page/ranks"] != nil)
        server.configuration.apiKeys = [Self.key]
        for path in Self.files.map(\.path) + Self.figures {
            #expect(try await server.send(.get, path).status == 401, "\(path)")
        }
    }

    @Test func `the page is there while the model is being loaded, its figures say that it is`() async throws {
        let application = buildApplication(
            configuration: ServerConfiguration(servedModelName: "toy"), slot: ModelSlot())
        let client = try await RouteClient(application)
        #expect(try await ToyServer.send(client, .get, "/").status == 200)
        let reply = try await ToyServer.send(client, .get, "/page/ranks")
        #expect(reply.status == 503 && reply.code == "loading")
    }

    // MARK: - Figures

    private static func rank(_ number: Int) -> RankStatus {
        var rank = RankStatus(
            rank: number, coordinates: [.init(axis: "pipeline", place: 0), .init(axis: "context", place: number)])
        rank.rows = 10 + number
        rank.lastRows = 3 + number
        rank.steps = 7
        rank.busySeconds = 0.5
        rank.ownedTokens = 40
        var operation = RankStatus.Operation(name: "keys")
        operation.seconds = 0.25
        operation.skewSeconds = 0.125
        rank.operations = [operation, operation]
        return rank
    }

    @Test func `figures of each rank are those of the metrics`() async throws {
        let server = Self.server()
        server.engine.setRanks([Self.rank(0), Self.rank(1)], layout: "2 ranks")
        server.engine.cachedPages = 5
        let reply = try await server.send(.get, "/page/ranks")
        #expect(reply.header("Cache-Control") == "no-store" && reply.header("X-Content-Type-Options") == "nosniff")
        let json = reply.json
        #expect(json["layout"]?.string == "2 ranks" && json["failure"] == .null && json["draining"]?.bool == false)
        #expect(json["running"]?.integer == 0 && json["queued"]?.integer == 0)
        #expect(json["pages"]?["total"]?.integer == 64 && json["pages"]?["cached"]?.integer == 5)
        #expect(json["pages"]?["tokens"]?.integer == 64 && json["pages"]?["free"]?.integer == 59)
        let rank = try #require(json["ranks"]?[1])
        #expect(rank["rank"]?.integer == 1 && rank["colour"]?.string == "#ddeeff")
        #expect(rank["place"]?["context"]?.integer == 1 && rank["place"]?["pipeline"]?.integer == 0)
        #expect(rank["rows"]?.integer == 11 && rank["last_rows"]?.integer == 4 && rank["steps"]?.integer == 7)
        #expect(rank["busy_seconds"]?.double == 0.5 && rank["collective_seconds"]?.double == 0.5)
        #expect(rank["waiting_seconds"]?.double == 0.25 && rank["owned_tokens"]?.integer == 40)
        let first = try #require(json["seconds"]?.double)
        let later = try #require(try await server.send(.get, "/page/ranks").json["seconds"]?.double)
        #expect(later > first)
    }

    @Test func `a failed engine is told, and more ranks than colours`() async throws {
        let server = Self.server()
        server.engine.setRanks((0..<3).map(Self.rank), layout: "3 ranks")
        server.engine.failForever("rank 2 is lost")
        let json = try await server.send(.get, "/page/ranks").json
        #expect(json["failure"]?.string == "rank 2 is lost" && json["ranks"]?[2]?["colour"] == .null)
    }

    @Test func `a timeline lists the pieces of each rank`() async throws {
        let server = Self.server()
        let none = try await server.send(.get, "/page/timeline")
        #expect(none.status == 200 && none.json == .null)
        let name = "</script>\"\n"
        server.engine.setTimeline(
            StepTimeline(
                step: 9, requests: 2, nanoseconds: 500,
                ranks: [
                    .init(
                        rank: 0, rows: 4,
                        spans: [
                            .init(name: "step", number: 9, begin: 0, length: 500),
                            .init(name: name, begin: 100, length: 50),
                        ]),
                    .init(rank: 1, rows: 0, spans: [.init(name: name, begin: 90, length: 60)], isCut: true),
                ]))
        let reply = try await server.send(.get, "/page/timeline")
        #expect(reply.header("Cache-Control") == "no-store")
        let json = reply.json
        #expect(json["step"]?.integer == 9 && json["requests"]?.integer == 2 && json["nanoseconds"]?.integer == 500)
        #expect(json["names"]?.strings == ["step", name])
        #expect(json["ranks"]?[0]?["spans"]?.integers == [0, 9, 0, 500, 1, -1, 100, 50])
        #expect(json["ranks"]?[0]?["rows"]?.integer == 4 && json["ranks"]?[0]?["cut"]?.bool == false)
        #expect(json["ranks"]?[1]?["spans"]?.integers == [1, -1, 90, 60] && json["ranks"]?[1]?["cut"]?.bool == true)
        // Another step is written anew.
        server.engine.setTimeline(StepTimeline(step: 10, requests: 1, nanoseconds: 7, ranks: []))
        #expect(try await server.send(.get, "/page/timeline").json["step"]?.integer == 10)
    }

    @Test func `the drawing is that of the configuration`() async throws {
        var server = Self.server()
        let reply = try await server.send(.get, "/page/layout.svg")
        #expect(reply.status == 200 && reply.text == "<svg/>")
        #expect(reply.header("Content-Type") == "image/svg+xml" && reply.header("X-Content-Type-Options") == "nosniff")
        server.configuration.drawing = nil
        #expect(try await server.send(.get, "/page/layout.svg").status == 404)
    }
}
