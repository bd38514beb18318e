package import Inference

/// A message of the control connection between a prefill and a decode server. The decode server numbers the transfers
/// of a session; both servers name a request by that number.
package enum TransferMessage: Sendable, Equatable {
    // The decode server sends these.
    /// Asks for the computation of a request's prompt. `started` or `lost` answers.
    case ask(UInt64, GenerationRequest)
    /// Says that pages are reserved for the keys of these positions, which may be sent from now on.
    case ready(UInt64, group: Int, positions: Range<Int>, windowStart: Int)
    /// Ends the transfer: nothing more is to be computed or sent.
    case cancel(UInt64)
    /// Says that the prompt of this room will not be asked for, because the decode server computes it.
    case local(room: UInt64)

    // The prefill server sends these.
    /// Says that the computation has begun, in this data group.
    case started(UInt64, group: Int)
    /// Has the log-probabilities of the prompt's tokens, for a request that asks for them.
    case scores(UInt64, [TokenLogProbs])
    /// Says that all keys of the prompt are computed, with the first token and the drafts that follow it.
    case prefilled(UInt64, PrefillResult)
    /// Says that the request is refused, or that its computation has failed. The request itself is at fault if `isFinal`,
    /// so that every server would refuse it or fail.
    case lost(UInt64, reason: String, isFinal: Bool)

    /// Both servers send it to show that the connection is alive.
    case beat

    /// The name of the message without what it says, for errors.
    var kind: String {
        switch self {
        case .ask: "ask"
        case .ready: "ready"
        case .cancel: "cancel"
        case .local: "local"
        case .started: "started"
        case .scores: "scores"
        case .prefilled: "prefilled"
        case .lost: "lost"
        case .beat: "beat"
        }
    }
}

/// A message as it is sent: with the session, a sequence number from 0 on, and a checksum behind it.
package struct SealedMessage: Sendable, Equatable {
    package var session: UInt64
    package var sequence: UInt64
    package var message: TransferMessage

    package init(_ message: TransferMessage, session: UInt64, sequence: UInt64) {
        self.session = session
        self.sequence = sequence
        self.message = message
    }

    package var bytes: [UInt8] {
        let bytes = Wire.bytes(of: self)
        var sum = Checksum()
        sum.add(bytes[...])
        return bytes + (0..<4).map { UInt8(truncatingIfNeeded: sum.value >> (8 * $0)) }
    }

    /// Reads a message, which must be all of the bytes.
    package init(_ bytes: [UInt8]) throws(Wire.Failure) {
        guard bytes.count > 4 else { throw Wire.Failure(description: "\(bytes.count) bytes are no message") }
        var sum = Checksum()
        sum.add(bytes.dropLast(4))
        guard sum.value == bytes.suffix(4).reversed().reduce(0, { $0 << 8 | UInt32($1) }) else {
            throw Wire.Failure(description: "the checksum is wrong")
        }
        self = try Wire.value(in: Array(bytes.dropLast(4)))
    }
}

extension SealedMessage: WireCodable {
    package static var empty: SealedMessage { SealedMessage(.beat, session: 0, sequence: 0) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&session)
        try wire.pass(&sequence)
        try wire.pass(&message)
    }
}

extension TransferMessage: WireCodable {
    package static var empty: TransferMessage { .beat }

    private enum Kind: String {
        case ask, ready, cancel, local, started, scores, prefilled, lost, beat
    }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        var (kind, transfer) = head
        try wire.pass(&kind)
        if kind == .beat {
            self = .beat
            return
        }
        try wire.pass(&transfer)
        switch kind {
        case .ask:
            var request = GenerationRequest.empty
            if case .ask(_, let asked) = self { request = asked }
            try wire.pass(&request)
            self = .ask(transfer, request)
        case .ready:
            var (group, first, end, windowStart) = (0, 0, 0, 0)
            if case .ready(_, let of, let positions, let start) = self {
                (group, first, end, windowStart) = (of, positions.lowerBound, positions.upperBound, start)
            }
            try wire.pass(&group)
            try wire.pass(&first)
            try wire.pass(&end)
            try wire.pass(&windowStart)
            guard first >= 0, first <= end else { throw Wire.Failure(description: "positions \(first)..<\(end)") }
            self = .ready(transfer, group: group, positions: first..<end, windowStart: windowStart)
        case .started:
            var group = 0
            if case .started(_, let of) = self { group = of }
            try wire.pass(&group)
            self = .started(transfer, group: group)
        case .scores:
            var scores: [TokenLogProbs] = []
            if case .scores(_, let scored) = self { scores = scored }
            try wire.pass(&scores)
            self = .scores(transfer, scores)
        case .prefilled:
            var result = PrefillResult.empty
            if case .prefilled(_, let found) = self { result = found }
            try wire.pass(&result)
            self = .prefilled(transfer, result)
        case .lost:
            var (reason, isFinal) = ("", false)
            if case .lost(_, let why, let final) = self { (reason, isFinal) = (why, final) }
            try wire.pass(&reason)
            try wire.pass(&isFinal)
            self = .lost(transfer, reason: reason, isFinal: isFinal)
        case .local: self = .local(room: transfer)
        case .cancel, .beat: self = .cancel(transfer)
        }
    }

    private var head: (Kind, UInt64) {
        switch self {
        case .ask(let transfer, _): (.ask, transfer)
        case .ready(let transfer, _, _, _): (.ready, transfer)
        case .cancel(let transfer): (.cancel, transfer)
        case .local(let room): (.local, room)
        case .started(let transfer, _): (.started, transfer)
        case .scores(let transfer, _): (.scores, transfer)
        case .prefilled(let transfer, _): (.prefilled, transfer)
        case .lost(let transfer, _, _): (.lost, transfer)
        case .beat: (.beat, 0)
        }
    }
}

/// A request without its grammar, which the decode server's ranks apply, and without the choice of the prefill server; see
/// `DecodeSession`.
extension GenerationRequest: WireCodable {
    package static var empty: GenerationRequest { GenerationRequest(prompt: []) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&prompt)
        try wire.pass(&sampling)
        try wire.pass(&priority)
        try wire.pass(&cacheSalt)
        var (isScored, topCount, start) = (logProbs != nil, logProbs?.topCount ?? 0, logProbs?.promptStart)
        try wire.pass(&isScored)
        try wire.pass(&topCount)
        try wire.pass(&start)
        try wire.pass(&room)
        logProbs = isScored ? LogProbOptions(topCount: topCount, promptStart: start) : nil
    }
}

extension PrefillResult: WireCodable {
    package static var empty: PrefillResult { PrefillResult(token: nil) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&token)
        try wire.pass(&drafts)
        try wire.pass(&cachedTokens)
    }
}
