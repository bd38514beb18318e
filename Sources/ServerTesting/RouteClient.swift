package import HTTPTypes
package import Hummingbird
package import NIOCore
import NIOEmbedded
import Synchronization

/// A client that sends requests to the routes of an application, without a network and without the rules of HTTP/1.
package struct RouteClient: Sendable {
    private let respond: @Sendable (Request) async throws -> Response
    private let limit: Duration

    /// - Parameter limit: the time that an answer may take.
    package init<Application: ApplicationProtocol>(
        _ application: Application, limit: Duration = serverTestLimit
    ) async throws {
        let (responder, logger) = (try await application.responder, application.logger)
        respond = { request in
            let source = ApplicationRequestContextSource(channel: NIOAsyncTestingChannel(), logger: logger)
            return try await responder.respond(to: request, context: Application.Context(source: source))
        }
        self.limit = limit
    }

    /// Sends a request and returns the whole answer. An error that no route has answered is status 500, as on a
    /// connection.
    ///
    /// - Throws: `ServerTestError` if the answer is not complete in time.
    package func execute(
        uri: String, method: HTTPRequest.Method, headers: HTTPFields = [:], body: ByteBuffer? = nil
    ) async throws -> TestResponse {
        var headers = headers
        if let body { headers[.contentLength] = String(body.readableBytes) }
        let request = Request(
            head: HTTPRequest(method: method, scheme: "http", authority: "localhost", path: uri, headerFields: headers),
            body: RequestBody(asyncSequence: Self.parts(of: body)))
        let (respond, collected) = (respond, CollectedBody())
        let state: @Sendable () -> String = { "; \(collected.bytes.readableBytes) bytes of its body had arrived" }
        return try await bounded("the answer to \(method.rawValue) \(uri)", by: limit, state: state) {
            var response: Response
            do {
                response = try await respond(request)
            } catch {
                response = Response(status: .internalServerError)
            }
            try await response.body.write(collected)
            return TestResponse(status: response.status, headers: response.headers, body: collected.bytes)
        }
    }

    /// Returns a body in the parts in which a connection could deliver it.
    private static func parts(of body: ByteBuffer?) -> AsyncStream<ByteBuffer> {
        let (parts, continuation) = AsyncStream.makeStream(of: ByteBuffer.self)
        var rest = body ?? ByteBuffer()
        while rest.readableBytes > 0, let part = rest.readSlice(length: min(rest.readableBytes, 32 << 10)) {
            continuation.yield(part)
        }
        continuation.finish()
        return parts
    }
}

/// A whole answer.
package struct TestResponse: Sendable {
    package let status: HTTPResponse.Status
    package let headers: HTTPFields
    package let body: ByteBuffer
}

/// Collects the body of an answer.
private final class CollectedBody: ResponseBodyWriter, Sendable {
    private let content = Mutex(ByteBuffer())

    var bytes: ByteBuffer { content.withLock { $0 } }

    func write(_ buffer: ByteBuffer) async throws {
        content.withLock { _ = $0.writeImmutableBuffer(buffer) }
    }

    func finish(_ trailingHeaders: HTTPFields?) async throws {}
}
