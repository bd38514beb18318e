import Inference
package import JSON
import NIOCore
import NIOHTTP1
import Routing
import Serving

/// Answers the requests of a chat: a server, or the model in this process.
package protocol ChatBackend: Sendable {
    /// The name that requests give as `model`.
    var model: String { get }

    /// What is known of the engine, such as its layout, a fact each.
    func facts() async -> [String]

    /// Sends a request to `/v1/chat/completions`.
    ///
    /// - Parameter body: The body, with `"stream": true`.
    /// - Returns: The events of the stream. If the reading task is cancelled, so is the request.
    func events(_ body: JSONValue) -> AsyncThrowingStream<[UInt8], any Error>
}

/// Any server with OpenAI's chat route.
package struct RemoteChat: ChatBackend {
    package let model: String
    private let client: HTTPClient

    /// Asks the server for its model, unless the user has named it.
    ///
    /// - Throws: `CommandError` if there is no such server, or it lists no model.
    package init(_ client: HTTPClient, model: String?) async throws {
        self.client = client
        if let model {
            self.model = model
            return
        }
        let answer = try await client.get("/v1/models")
        guard answer.status == 200 else {
            throw CommandError("\(client.address)/v1/models: status \(answer.status): \(answer.message)")
        }
        let list = try? JSONValue(parsing: answer.body)
        guard let first = list?["data"]?.array?.first?["id"]?.string else {
            throw CommandError("\(client.address)/v1/models lists no model; name one with --model")
        }
        self.model = first
    }

    package func facts() async -> [String] {
        guard let answer = try? await client.limited(to: .seconds(5)).get("/server_info"), answer.status == 200,
            let info = try? JSONValue(parsing: answer.body)
        else { return [] }
        return [
            info["layout"]?.string.map { "layout \($0)" }, info["dtype"]?.string.map { "dtype \($0)" },
            info["kernels"]?.string.map { "kernels \($0)" },
        ].compactMap { $0?.printableLine }
    }

    package func events(_ body: JSONValue) -> AsyncThrowingStream<[UInt8], any Error> {
        let (client, body) = (client, ByteBuffer(string: body.pythonText))
        return AsyncThrowingStream { continuation in
            let task = Task {
                do {
                    var reader = try await client.exchange(
                        .POST, "/v1/chat/completions", body: body, into: Reader(continuation)
                    ) { try $0.take(status: $1, $2) }
                    continuation.finish(throwing: reader.end(client.address))
                } catch {
                    continuation.finish(throwing: error)
                }
            }
            continuation.onTermination = { _ in task.cancel() }
        }
    }

    /// Reads the answer to one request as its bytes arrive.
    private struct Reader: Sendable {
        private let continuation: AsyncThrowingStream<[UInt8], any Error>.Continuation
        private var events = ServerSentEvents()
        private var isDone = false
        /// The bytes of an error.
        private var answer = HTTPClient.Answer()

        init(_ continuation: AsyncThrowingStream<[UInt8], any Error>.Continuation) { self.continuation = continuation }

        mutating func take(status: Int, _ bytes: ByteBuffer) throws {
            answer.status = status
            guard status == 200 else { return try answer.append(bytes) }
            for event in try events.take(bytes.readableBytesView) {
                if event.elementsEqual("[DONE]".utf8) { isDone = true } else { continuation.yield(event) }
            }
        }

        /// Returns the error with which the answer ended; `nil` if it is complete.
        mutating func end(_ address: ServerAddress) -> CommandError? {
            guard answer.status == 200 else {
                return CommandError("\(address)/v1/chat/completions: status \(answer.status): \(answer.message)")
            }
            return isDone ? nil : CommandError("the stream ended without [DONE]")
        }
    }
}

/// The model in this process.
struct ModelChat: ChatBackend {
    let model: String
    private let service: TextService
    private let chat: LocalChat

    init(_ service: TextService, model: String) {
        self.model = model
        self.service = service
        chat = LocalChat(service, model: model)
    }

    func facts() async -> [String] {
        let status = service.engine.status()
        return ["layout \(status.layout)", "dtype \(status.dtype)", "kernels \(status.kernels)"]
    }

    func events(_ body: JSONValue) -> AsyncThrowingStream<[UInt8], any Error> {
        let chat = chat
        return AsyncThrowingStream { continuation in
            let task = Task {
                do {
                    try await chat.stream(body) { continuation.yield($0) }
                    continuation.finish()
                } catch {
                    continuation.finish(throwing: error)
                }
            }
            continuation.onTermination = { _ in task.cancel() }
        }
    }
}
