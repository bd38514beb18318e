import NIOCore
import NIOHTTP1

/// Sends the router's own requests to workers, whose answers are small.
struct WorkerClient: Sendable {
    /// The key of the workers; `nil` sends none.
    let key: String?

    /// The maximum size of an answer in bytes.
    static let maxBytes = 1 << 20

    /// - Throws: `UpstreamError` if the answer is not complete in time, or is larger than `maxBytes`.
    func send(
        _ method: HTTPMethod, _ path: String, to address: ServerAddress, body: ByteBuffer = ByteBuffer(),
        within timeout: Duration
    ) async throws(UpstreamError) -> (status: Int, body: [UInt8]) {
        var headers: HTTPHeaders = ["host": address.authority, "connection": "close", "user-agent": "braid-router"]
        if let key { headers.add(name: "authorization", value: "Bearer \(key)") }
        if method != .GET {
            headers.add(name: "content-type", value: "application/json")
            headers.add(name: "content-length", value: String(body.readableBytes))
        }
        let head = HTTPRequestHead(
            version: .http1_1, method: method, uri: address.prefix + path, headers: headers)
        let exchange = try await UpstreamExchange.open(to: address, head, body, connectTimeout: timeout)
        let timer = Task { () -> Bool in
            guard (try? await Task.sleep(for: timeout)) != nil else { return false }
            exchange.close()
            return true
        }
        do {
            defer { timer.cancel() }
            return try await Self.read(exchange)
        } catch {
            throw await timer.value ? .lost("no answer within \(timeout)") : error
        }
    }

    private static func read(_ exchange: UpstreamExchange) async throws(UpstreamError) -> (status: Int, body: [UInt8]) {
        var (status, bytes) = (0, [UInt8]())
        while true {
            switch try await exchange.next() {
            case .head(let head): status = Int(head.status.code)
            case .body(let part):
                guard bytes.count + part.readableBytes <= maxBytes else {
                    throw .lost("the answer has more than \(maxBytes) bytes")
                }
                bytes += part.readableBytesView
            case .end: return (status, bytes)
            }
        }
    }
}
