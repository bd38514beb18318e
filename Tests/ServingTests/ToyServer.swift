import HTTPTypes
import Hummingbird
import Inference
import JSON
import NIOCore
import ServerTesting
import Serving
import TestSupport
import Testing
import Tokenization

/// A server over the toy engine, with functions that send requests to it.
struct ToyServer {
    let engine: ToyEngine
    let slot: ModelSlot
    var configuration = ServerConfiguration(servedModelName: "toy")

    /// Creates a server.
    ///
    /// - Parameter answer: returns the tokens that the engine generates for a request before the end of the text.
    init(
        contextLength: Int = 4096, defaults: SamplingDefaults = SamplingDefaults(),
        tokenizer: Tokenizer = ToyTokenizer.shared, transfers: TransferService? = nil, maxTopLogProbs: Int = 20,
        answer: @escaping @Sendable (GenerationRequest) -> [Int32]
    ) {
        engine = ToyEngine(
            contextLength: contextLength, vocabularySize: 1024, maxTopLogProbs: maxTopLogProbs,
            endOfText: ToyTokenizer.eos, answer: answer)
        configuration.requests.maxTopLogProbs = maxTopLogProbs
        slot = ModelSlot(
            TextService(engine: engine, tokenizer: tokenizer, defaults: defaults, transfers: transfers))
    }

    /// Creates a server that answers every request with `text`.
    init(_ text: String) {
        self.init { _ in ToyTokenizer.tokens(text) }
    }

    var application: some ApplicationProtocol { buildApplication(configuration: configuration, slot: slot) }

    /// Sends one request to the routes without a network.
    func send(
        _ method: HTTPRequest.Method, _ path: String, _ body: String? = nil, headers: HTTPFields = [:]
    ) async throws -> Reply {
        try await Self.send(RouteClient(application), method, path, body, headers: headers)
    }

    static func send(
        _ client: RouteClient, _ method: HTTPRequest.Method, _ path: String, _ body: String? = nil,
        headers: HTTPFields = [:]
    ) async throws -> Reply {
        Reply(
            try await client.execute(
                uri: path, method: method, headers: headers, body: body.map { ByteBuffer(string: $0) }))
    }

    func post(_ path: String, _ body: String) async throws -> Reply { try await send(.post, path, body) }

    /// Posts to `/abort_request` until so many aborts were counted. A generation may run a moment before it is known by its
    /// id, and one that ends may be counted again.
    func abort(_ body: String, atLeast count: Int = 1) async throws {
        var aborted = 0
        for _ in 0..<6000 where aborted < count {
            aborted += try await post("/abort_request", body).json["aborted"]?.integer ?? 0
            try await Task.sleep(for: .milliseconds(10))
        }
        #expect(aborted >= count)
    }
}

/// A response, with accessors that read it as a client does.
struct Reply {
    let status: Int
    private let headers: HTTPFields
    let text: String

    init(_ response: TestResponse) {
        status = Int(response.status.code)
        headers = response.headers
        text = String(buffer: response.body)
    }

    func header(_ name: String) -> String? { HTTPField.Name(name).flatMap { headers[$0] } }

    var json: JSONValue { (try? JSONValue(parsing: text)) ?? .null }

    /// The data of each server-sent event.
    var events: [String] {
        text.split(separator: "\n\n").compactMap { $0.hasPrefix("data: ") ? String($0.dropFirst(6)) : nil }
    }

    /// The names and data of the server-sent events that have names.
    var namedEvents: [(name: String, data: JSONValue)] {
        text.split(separator: "\n\n").compactMap { event in
            let lines = event.split(separator: "\n")
            guard lines.count == 2, lines[0].hasPrefix("event: "), lines[1].hasPrefix("data: ") else { return nil }
            return (String(lines[0].dropFirst(7)), (try? JSONValue(parsing: String(lines[1].dropFirst(6)))) ?? .null)
        }
    }

    /// The events that are JSON: all but the final `[DONE]`.
    var chunks: [JSONValue] { events.compactMap { try? JSONValue(parsing: $0) } }

    /// The members `param` and `code` of an error.
    var parameter: String? { json["error"]?["param"]?.string }
    var code: String? { json["error"]?["code"]?.string }
    var message: String { json["error"]?["message"]?.string ?? "" }
}

extension JSONValue {
    subscript(index: Int) -> JSONValue? {
        guard let array, array.indices.contains(index) else { return nil }
        return array[index]
    }

    var integers: [Int]? { array?.compactMap(\.integer) }
    var strings: [String]? { array?.compactMap(\.string) }
}
