import HTTPTypes
import Hummingbird
import Inference
import JSON
import Serving
import TestSupport
import Testing

/// Tests of API keys, of the list of models, and of unknown routes and methods.
@Suite struct AccessTests {
    private static let key = "secret-key-123"

    private static func server() -> ToyServer {
        var server = ToyServer("x")
        server.configuration.apiKeys = [key]
        return server
    }

    static let paths = [
        "/ready", "/metrics", "/server_info", "/flush_cache", "/reset_prefix_cache", "/ping", "/version",
        "/health_generate",
        "/get_server_info",
        "/model_info", "/get_model_info", "/v1/loads", "/get_load", "/abort_request", "/tokenizer_info",
        "/openapi.json",
        "/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/v1/models", "/v1/models/toy",
        "/v1/chat/completions",
        "/v1/completions",
        "/generate", "/tokenize", "/detokenize", "/no/such/route", "//", "/page/ranks", "/page/timeline",
        "/page/layout.svg", "/page/no", "/health/../metrics", "/Health", "/healthy",
    ]

    /// The files of the page are the only others: see `PageTests`.
    @Test(arguments: paths, ["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE"])
    func `no path but health is answered without the key, whether it is a route or not`(
        _ path: String, _ method: String
    ) async throws {
        let reply = try await Self.server().send(#require(HTTPRequest.Method(method)), path, "{}")
        #expect(reply.status == 401)
        #expect(reply.header("WWW-Authenticate") == "Bearer")
        // An answer to HEAD has no body.
        if method != "HEAD" { #expect(reply.message.hasPrefix("this server asks for an API key")) }
    }

    @Test(arguments: [
        "Bearer secret-key-12", "Bearer secret-key-1234", "Bearer ", "Bearer", "secret-key-123", "Basic secret-key-123",
        "Bearer  secret-key-123", "Bearer secret-key-124", "Bearer " + String(repeating: "x", count: 1 << 20), "",
    ])
    func `a wrong key is refused`(_ field: String) async throws {
        let reply = try await Self.server().send(.get, "/v1/models", headers: [.authorization: field])
        #expect(reply.status == 401)
        #expect(reply.code == "invalid_api_key")
        #expect(reply.message.hasPrefix("the API key is not this server's"))
    }

    @Test func `a key in the query is not accepted`() async throws {
        let reply = try await Self.server().send(.get, "/v1/models?api_key=\(Self.key)")
        #expect(reply.status == 401)
    }

    @Test(arguments: ["Bearer", "bearer"]) func `the right key opens every route`(_ scheme: String) async throws {
        let headers: HTTPFields = [.authorization: "\(scheme) \(Self.key)"]
        #expect(try await Self.server().send(.get, "/v1/models", headers: headers).status == 200)
        #expect(try await Self.server().send(.post, "/generate", #"{"text":"a"}"#, headers: headers).status == 200)
        #expect(try await Self.server().send(.get, "/no/such/route", headers: headers).status == 404)
    }

    @Test func `each of several keys opens every route, and no mixture of them`() async throws {
        var server = ToyServer("x")
        server.configuration.apiKeys = ["one-key", "two-keys"]
        let presented = [
            ("one-key", 200), ("two-keys", 200), ("one-keys", 401), ("two-key", 401), ("one-key two-keys", 401),
        ]
        for (key, status) in presented {
            let reply = try await server.send(.get, "/v1/models", headers: [.authorization: "Bearer \(key)"])
            #expect(reply.status == status, "\(key)")
            let plain = try await server.send(.get, "/v1/models", headers: [HTTPField.Name("x-api-key")!: key])
            #expect(plain.status == status, "\(key)")
        }
    }

    @Test func `a model of several names is asked for by each, and answers with the first`() async throws {
        var server = ToyServer("x")
        server.configuration.otherModelNames = ["alias", "org/alias"]
        let list = try await server.send(.get, "/v1/models")
        #expect(list.json["data"]?.array?.map { $0["id"]?.string } == ["toy", "alias", "org/alias"])
        #expect(try await server.send(.get, "/v1/models/org/alias").json["id"]?.string == "org/alias")
        let bodies = [
            ("/v1/completions", #""prompt":"a","max_tokens":1"#),
            ("/v1/chat/completions", #""messages":[{"role":"user","content":"a"}]"#),
            ("/v1/messages", #""messages":[{"role":"user","content":"a"}],"max_tokens":1"#),
            ("/v1/responses", #""input":"a""#),
        ]
        for (path, body) in bodies {
            for name in server.configuration.modelNames {
                let reply = try await server.post(path, #"{"model":"\#(name)",\#(body)}"#)
                #expect(reply.status == 200 && reply.json["model"]?.string == "toy", "\(path) \(name): \(reply.text)")
            }
            let other = try await server.post(path, #"{"model":"other",\#(body)}"#)
            #expect(other.status == 404 && other.message.contains("'toy', 'alias', 'org/alias'"), "\(other.text)")
        }
    }

    @Test func `health needs no key and never shows one`() async throws {
        #expect(try await Self.server().send(.get, "/health").status == 200)
        let info = try await Self.server().send(
            .get, "/server_info", headers: [.authorization: "Bearer \(Self.key)"])
        #expect(info.status == 200)
        #expect(!info.text.contains(Self.key))
    }

    @Test func `models are listed and found by name, also by a name with slashes`() async throws {
        var server = ToyServer("x")
        server.configuration.servedModelName = "org/toy model"
        let list = try await server.send(.get, "/v1/models")
        #expect(list.json["object"]?.string == "list")
        #expect(list.json["data"]?[0]?["id"]?.string == "org/toy model")
        #expect(list.json["data"]?[0]?["max_model_len"]?.integer == 4096)
        for path in ["/v1/models/org/toy%20model", "/v1/models/org%2Ftoy%20model"] {
            let one = try await server.send(.get, path)
            #expect(one.status == 200)
            #expect(one.json["object"]?.string == "model")
        }
        let other = try await server.send(.get, "/v1/models/org")
        #expect(other.status == 404)
        #expect(other.code == "model_not_found")
    }

    @Test func `an unknown route is a 404 in OpenAI's format`() async throws {
        let reply = try await ToyServer("x").send(.get, "/v2/nothing")
        #expect(reply.status == 404)
        #expect(reply.json["error"]?["type"]?.string == "invalid_request_error")
    }

    @Test(arguments: [("/generate", "POST, PUT"), ("/v1/chat/completions", "POST"), ("/health", "GET, HEAD")])
    func `a wrong method is a 405 that names the right ones`(_ path: String, _ allowed: String) async throws {
        let reply = try await ToyServer("x").send(.delete, path)
        #expect(reply.status == 405)
        #expect(reply.header("Allow") == allowed)
    }
}
