import JSON
import Routing

/// Server facts are what must be known of a server before work is sent to it.
struct ServerFacts: Sendable {
    let model: String
    /// The size of the vocabulary; `nil` if the server does not tell.
    let vocabularySize: Int?
    /// The server's context length in tokens; `nil` if the server does not tell.
    let contextLength: Int?

    /// Asks the server.
    ///
    /// - Parameter model: The model's name, if the user gave it.
    init(_ client: HTTPClient, model: String?) async throws {
        let info = try await Self.json("/server_info", client)
        contextLength = info?["context_length"]?.integer
        vocabularySize = info?["vocab_size"]?.integer
        if let model {
            self.model = model
        } else {
            let list = try await Self.json("/v1/models", client)
            guard let first = list?["data"]?.array?.first?["id"]?.string else {
                throw CommandError("\(client.address)/v1/models lists no model; name one with --model")
            }
            self.model = first
        }
    }

    /// Requests a JSON value.
    ///
    /// - Returns: The value; `nil` if there is no such route, or its answer is not JSON.
    private static func json(_ path: String, _ client: HTTPClient) async throws -> JSONValue? {
        let answer = try await client.get(path)
        if answer.status == 404 { return nil }
        guard answer.status == 200 else {
            throw CommandError("\(client.address)\(path): status \(answer.status): \(answer.message)")
        }
        return try? JSONValue(parsing: answer.body)
    }

    /// - Parameters:
    ///   - longest: The prompt and new tokens of the longest request together.
    ///   - options: The command-line options that determine it.
    /// - Throws: `CommandError` if the server's context is too short for the longest request.
    func check(longest: Int, _ options: String) throws {
        guard let contextLength, longest > contextLength else { return }
        throw CommandError("\(options): \(longest) tokens are needed; the server's context has \(contextLength)")
    }
}

/// Returns the reasons of failures with their counts, most frequent first.
func failureCounts(_ reasons: [String]) -> [(reason: String, count: Int)] {
    Dictionary(grouping: reasons) { $0 }
        .map { (reason: $0.key, count: $0.value.count) }
        .sorted { ($1.count, $0.reason) < ($0.count, $1.reason) }
}
