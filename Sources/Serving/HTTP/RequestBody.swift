import Hummingbird
import JSON

/// How a request's body is read: all of it, as JSON, within bounds of size and time.
struct BodyReader: Sendable {
    let maxBytes: Int
    let timeout: Duration

    init(_ configuration: ServerConfiguration) {
        maxBytes = configuration.maxBodyBytes
        timeout = configuration.bodyTimeout
    }

    func fields(of request: Request) async throws -> RequestFields {
        if let length = request.headers[.contentLength].flatMap(Int.init), length > maxBytes {
            throw tooLarge(" of \(length) bytes")
        }
        let bytes = try await collect(request.body)
        let value: JSONValue
        do {
            value = try JSONValue(parsing: bytes.readableBytesView)
        } catch {
            throw RequestError.invalid(nil, "the request body is not usable: \(error)", code: "invalid_json")
        }
        return try RequestFields(value)
    }

    private func collect(_ body: RequestBody) async throws -> ByteBuffer {
        try await withThrowingTaskGroup(of: ByteBuffer.self) { group in
            group.addTask {
                var whole = ByteBuffer()
                for try await var part in body {
                    guard whole.readableBytes + part.readableBytes <= maxBytes else { throw tooLarge("") }
                    whole.writeBuffer(&part)
                }
                return whole
            }
            group.addTask {
                try await Task.sleep(for: timeout)
                throw RequestError(.timeout, "the request body did not arrive within \(timeout)", code: "timeout")
            }
            defer { group.cancelAll() }
            guard let bytes = try await group.next() else { throw CancellationError() }
            return bytes
        }
    }

    private func tooLarge(_ size: String) -> RequestError {
        RequestError(
            .tooLarge, "the request body\(size) is too large: at most \(maxBytes) bytes are read",
            code: "request_too_large")
    }
}
