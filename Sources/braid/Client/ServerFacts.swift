import JSON

/// What has to be known of a server before work is sent to it.
struct ServerFacts: Sendable {
    let model: String
    /// `nil` where the server does not say.
    let vocabularySize: Int?
    /// `nil` where the server does not say.
    let contextLength: Int?

    /// Asks the server.
    ///
    /// - Parameter model: the model's name, if the user gave it.
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

    /// - Returns: `nil` where there is no such route, or what it gives is no JSON.
    private static func json(_ path: String, _ client: HTTPClient) async throws -> JSONValue? {
        let answer = try await client.get(path)
        if answer.status == 404 { return nil }
        guard answer.status == 200 else {
            throw CommandError("\(client.address)\(path): status \(answer.status): \(answer.message)")
        }
        return try? JSONValue(parsing: answer.body)
    }

    /// - Parameters:
    ///   - longest: prompt and new tokens of the longest request.
    ///   - options: what the user gave for it.
    /// - Throws: when the longest request could not be served.
    func check(longest: Int, _ options: String) throws {
        guard let contextLength, longest > contextLength else { return }
        throw CommandError("\(options): \(longest) tokens are needed; the server's context has \(contextLength)")
    }
}

/// Why requests failed, with numbers, most frequent first.
func failureCounts(_ reasons: [String]) -> [(reason: String, count: Int)] {
    Dictionary(grouping: reasons) { $0 }
        .map { (reason: $0.key, count: $0.value.count) }
        .sorted { ($1.count, $0.reason) < ($0.count, $1.reason) }
}
