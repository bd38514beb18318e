import NIOCore
import NIOHTTP1

/// A worker's answer of which the first bytes have arrived. From here on, no other worker can answer, unless these bytes
/// are comments of a stream.
struct ForwardedAnswer: Sendable {
    let head: HTTPResponseHead
    /// The first bytes of the body.
    let first: ByteBuffer
    /// True if `first` is the whole body.
    let isWhole: Bool
    let exchange: UpstreamExchange
    let lease: Fleet.Lease

    /// True for a stream of events, of which more may follow.
    var isStream: Bool {
        !isWhole && head.status == .ok && head.headers["content-encoding"].isEmpty
            && head.headers["content-type"].first?.lowercased().hasPrefix("text/event-stream") == true
    }

    /// Returns the next bytes of the body, or `nil` at its end.
    func next() async throws(UpstreamError) -> ByteBuffer? {
        guard !isWhole, case .body(let bytes) = try await exchange.next() else { return nil }
        return bytes
    }

    /// Records that the client has the whole answer.
    func succeed() {
        exchange.close()
        lease.end(head.status.code >= 500 ? .failed : .succeeded)
    }

    /// Ends the request to the worker, of which nothing is used.
    func abandon() {
        exchange.close()
        lease.end(.abandoned)
    }

    /// Ends the request to the worker, because the answer did not reach the client.
    ///
    /// - Returns: whether the worker has broken it off.
    func fail(_ error: any Error, clientIsGone: Bool) -> Bool {
        exchange.close()
        let isWorkers = error is UpstreamError && !clientIsGone
        lease.end(isWorkers ? .failed : .abandoned)
        return isWorkers
    }
}
