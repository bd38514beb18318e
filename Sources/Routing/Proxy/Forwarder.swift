import HTTPTypes
import Hummingbird
import NIOHTTP1
import Serving

/// Sends a client's request to a worker as it is, and the worker's answer to the client as it comes.
///
/// While no worker has begun to answer, a request that one refuses is sent to another one.
struct Forwarder: Sendable {
    let configuration: RouterConfiguration
    let fleet: Fleet
    let gate: AdmissionGate
    let metrics: RouterMetrics
    let reader: BodyReader

    /// A client's request, which is sent to one worker after the other.
    private struct Asked: Sendable {
        let request: Request
        let body: ByteBuffer
        let text: RoutedText
        let arrival: ContinuousClock.Instant
        let connection: ClientConnection
        let hangUp: HangUp
        // What must live as long as the answer is sent.
        let permit: AdmissionGate.Permit
        let watch: HangUpHandler.Watch?
        let share: MemoryBudget.Share?
    }

    private enum Attempt {
        case answered(ForwardedAnswer)
        case refused(Refusal)
    }

    /// Handles a request with a body.
    func post(_ request: Request, _ context: ServingContext) async throws -> Response {
        let arrival = ContinuousClock.now
        let body = try await reader.collect(request, on: context.connection)
        let text = try await routedText(of: body, context.connection)
        try body.share.resize(to: body.bytes.readableBytes)
        return try await forward(request, body.bytes, text, body.share, since: arrival, context.connection)
    }

    /// Handles a request without a body, which any worker answers.
    func get(_ request: Request, _ context: ServingContext) async throws -> Response {
        try await forward(request, ByteBuffer(), RoutedText(), nil, since: .now, context.connection)
    }

    /// Returns the text by which a request is routed. What is wrong with a body is for a worker to say.
    private func routedText(
        of body: BodyReader.Collected, _ connection: ClientConnection
    ) async throws -> RoutedText {
        guard configuration.pool.policy == .cacheAware else { return RoutedText() }
        do {
            return try await reader.parse(body, on: connection) { RoutedText(of: $0) }
        } catch let error as RequestError where error.kind == .invalid {
            return RoutedText()
        }
    }

    private func forward(
        _ request: Request, _ body: ByteBuffer, _ text: RoutedText, _ share: MemoryBudget.Share?,
        since arrival: ContinuousClock.Instant, _ connection: ClientConnection
    ) async throws -> Response {
        let hangUp = HangUp()
        let watch = await connection.onHangUp { hangUp.happen() }
        guard let permit = try await gate.enter(onWait: { hangUp.setAction($0) }) else {
            if hangUp.hasHappened { throw RequestError(.clientGone, "the client went away") }
            return unavailable("the request has waited \(configuration.queueTimeout) for others to end", 1, request)
        }
        fleet.countRequest()
        let asked = Asked(
            request: request, body: body, text: text, arrival: arrival, connection: connection, hangUp: hangUp,
            permit: permit, watch: watch, share: share)
        return try await answer(asked)
    }

    /// The workers that a request was sent to, and why they have not answered.
    private struct Search: Sendable {
        var tried: Set<Int> = []
        var refusals: [Refusal] = []
    }

    private func answer(_ asked: Asked) async throws -> Response {
        var search = Search()
        if let answer = try await firstAnswer(to: asked, &search) { return response(answer, to: asked, search) }
        return unavailable(after: search.refusals, asked.request)
    }

    /// Sends a request to workers until one answers.
    ///
    /// - Returns: `nil` if none does.
    private func firstAnswer(to asked: Asked, _ search: inout Search) async throws -> ForwardedAnswer? {
        while !asked.hangUp.hasHappened, mayTry(after: search.refusals),
            let lease = fleet.assign(asked.text, excluding: search.tried)
        {
            if let last = search.refusals.last {
                guard fleet.takeRetry() else { break }
                metrics.countRetry(last.kind)
            } else {
                metrics.observeOverhead(of: ContinuousClock.now - asked.arrival)
            }
            search.tried.insert(lease.assignment.worker)
            let attempt = try await send(asked, lease)
            if asked.hangUp.hasHappened { throw RequestError(.clientGone, "the client went away") }
            switch attempt {
            case .answered(let answer): return answer
            case .refused(let refusal):
                lease.end(.refused(refusal))
                search.refusals.append(refusal)
            }
        }
        if asked.hangUp.hasHappened { throw RequestError(.clientGone, "the client went away") }
        return nil
    }

    private func unavailable(after refusals: [Refusal], _ request: Request) -> Response {
        let reason = refusals.last.map { "the last one that was asked: \($0.reason)" } ?? "none is ready"
        return unavailable(
            "no worker can answer now (\(reason)); try again", refusals.compactMap(\.retryAfter).min() ?? 1, request)
    }

    /// Returns whether a request that workers have refused may be sent to one more. A request that has cost one worker
    /// its connection may cost another one's, and no third.
    private func mayTry(after refusals: [Refusal]) -> Bool {
        refusals.count <= configuration.maxRetries && refusals.count(where: { $0.kind == .lost }) < 2
    }

    private func unavailable(_ message: String, _ seconds: Int, _ request: Request) -> Response {
        var response = Response.error(
            RequestError(.unavailable, message, code: "no_worker_available"), request)
        response.headers[.retryAfter] = String(max(1, seconds))
        return response
    }

    // MARK: - One worker

    /// Sends a request to a worker, and waits for the first bytes of its answer.
    private func send(_ asked: Asked, _ lease: Fleet.Lease) async throws -> Attempt {
        let address = lease.assignment.address
        // A HEAD is a GET whose answer's body is dropped here.
        let method = asked.request.method == .head ? "GET" : asked.request.method.rawValue
        let head = HTTPRequestHead(
            version: .http1_1, method: HTTPMethod(rawValue: method),
            uri: address.prefix + asked.request.uri.path + (asked.request.uri.query.map { "?\($0)" } ?? ""),
            headers: ForwardedHeaders.request(
                asked.request.headers, to: address, bodyBytes: asked.body.readableBytes, key: configuration.workerKey))
        do {
            let exchange = try await UpstreamExchange.open(
                to: address, head, asked.body, connectTimeout: configuration.connectTimeout)
            lease.setClose { [weak exchange] in exchange?.close() }
            asked.hangUp.setAction { [weak exchange] in exchange?.close() }
            return try await firstPart(of: exchange, lease)
        } catch let error as UpstreamError {
            guard !asked.hangUp.hasHappened else { return .refused(Refusal(.lost, "the client went away")) }
            switch error {
            case .refused: return .refused(Refusal(.unreachable, "\(error)"))
            case .exhausted: return .refused(Refusal(.noResources, "\(error)"))
            case .lost: return .refused(Refusal(.lost, "\(error)"))
            }
        }
    }

    private func firstPart(of exchange: UpstreamExchange, _ lease: Fleet.Lease) async throws -> Attempt {
        guard case .head(let head) = try await exchange.next() else {
            throw UpstreamError.lost("the answer has no status")
        }
        let status = Int(head.status.code)
        // NIO would take others for an interim answer, and the client's connection would be out of step.
        guard (200...999).contains(status) else { throw UpstreamError.lost("the answer has the status \(status)") }
        metrics.countAnswer(of: lease.assignment.address, status: status)
        let isSmall = Refusal.isPossible(status: status)
        let (body, isWhole) = try await beginning(of: exchange, atLeast: isSmall ? Refusal.maxBytes : 1)
        if isSmall, isWhole {
            let retryAfter = head.headers["retry-after"].first
            if let refusal = Refusal(status: status, body: Array(body.readableBytesView), retryAfter: retryAfter) {
                return .refused(refusal)
            }
        }
        return .answered(ForwardedAnswer(head: head, first: body, isWhole: isWhole, exchange: exchange, lease: lease))
    }

    /// Reads the first bytes of a body.
    ///
    /// - Parameter count: the number of bytes after which reading ends.
    /// - Returns: the bytes, and whether these are all.
    private func beginning(
        of exchange: UpstreamExchange, atLeast count: Int
    ) async throws(UpstreamError) -> (ByteBuffer, isWhole: Bool) {
        var body = ByteBuffer()
        while body.readableBytes < count {
            guard case .body(var bytes) = try await exchange.next() else { return (body, true) }
            body.writeBuffer(&bytes)
        }
        return (body, false)
    }

    // MARK: - The answer

    /// Records that a worker's answer has begun.
    private func begin(_ answer: ForwardedAnswer, to asked: Asked) {
        answer.lease.answer(isGood: answer.head.status.code < 500)
        metrics.observeFirstByte(after: ContinuousClock.now - asked.arrival)
    }

    /// Returns the response by which a worker's answer goes to the client, a part after the client has taken the one
    /// before.
    ///
    /// A stream of events has not begun while it has only comments, by which a worker shows that it still works: if that
    /// worker is lost, the stream of another one follows the comments.
    private func response(_ answer: ForwardedAnswer, to asked: Asked, _ search: Search) -> Response {
        if !answer.isStream { begin(answer, to: asked) }
        return Response(
            status: HTTPResponse.Status(
                code: Int(answer.head.status.code), reasonPhrase: answer.head.status.reasonPhrase),
            headers: ForwardedHeaders.answer(answer.head.headers),
            body: ResponseBody { writer in
                var passage = Passage(answer: answer, search: search, comments: answer.isStream ? EventComments() : nil)
                do {
                    while let bytes = try await nextBytes(of: &passage, to: asked) {
                        try await writer.write(bytes)
                        try await asked.connection.takeWrites()
                    }
                } catch {
                    if passage.answer.fail(error, clientIsGone: asked.hangUp.hasHappened) {
                        metrics.countBrokenStream()
                    }
                    // Without the end of the body, so that the client does not take what it has for the whole.
                    asked.connection.close()
                    throw error
                }
                passage.answer.succeed()
                try await writer.finish(nil)
            })
    }

    /// An answer on its way to the client, or one of those that follow each other while there are only comments.
    private struct Passage {
        var answer: ForwardedAnswer
        var search: Search
        /// The comments so far; `nil` once the answer has begun, and for other answers than streams of events.
        var comments: EventComments?
        var hasFirst = false
    }

    /// Returns the bytes that follow on the way to the client; `nil` at the end.
    private func nextBytes(of passage: inout Passage, to asked: Asked) async throws -> ByteBuffer? {
        var bytes = passage.answer.first
        if passage.hasFirst {
            do throws(UpstreamError) {
                guard let next = try await passage.answer.next() else {
                    if passage.comments != nil { begin(passage.answer, to: asked) }
                    return nil
                }
                passage.answer.lease.recordSignOfLife()
                bytes = next
            } catch {
                guard let comments = passage.comments,
                    let other = try await otherStream(than: passage.answer, error, asked, &passage.search)
                else { throw error }
                bytes = ByteBuffer(string: comments.isInComment ? "\n" : "")
                bytes.writeImmutableBuffer(other.first)
                (passage.answer, passage.comments) = (other, EventComments())
            }
        }
        passage.hasFirst = true
        if passage.comments?.hasEvent(in: bytes) == true {
            passage.comments = nil
            begin(passage.answer, to: asked)
        }
        return bytes
    }

    /// Returns the stream of one more worker, after a stream that had only comments broke off.
    ///
    /// - Returns: `nil` if there is none, or the answer is another one than such a stream.
    private func otherStream(
        than lost: ForwardedAnswer, _ error: UpstreamError, _ asked: Asked, _ search: inout Search
    ) async throws -> ForwardedAnswer? {
        guard !asked.hangUp.hasHappened else { return nil }
        let refusal = Refusal(.lost, "\(error)")
        lost.exchange.close()
        lost.lease.end(.refused(refusal))
        search.refusals.append(refusal)
        guard let other = try await firstAnswer(to: asked, &search) else { return nil }
        if other.isStream { return other }
        other.abandon()
        return nil
    }
}
