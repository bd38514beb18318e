import Inference

/// The state that both ends of a session keep: the numbers of messages and frames, by which each notices a lost or repeated one,
/// and the time of the last sign of life. Times are in milliseconds of a monotonic clock that the caller reads.
///
/// A repeated message or frame is skipped. A missing one ends the session: whatever it concerned is then resolved by
/// the servers separately, so no loss can leave one of them waiting for the other.
struct TransferConnection: Sendable {
    let session: UInt64
    let timing: TransferTiming
    private(set) var outbox: [[UInt8]] = []
    private var nextMessage: UInt64 = 0
    private var nextExpected: UInt64 = 0
    private var lastSent: UInt64
    private var lastHeard: UInt64
    /// Notices that this process stood still, and so could not hear the other one.
    private var clock: WatchClock

    init(session: UInt64, _ timing: TransferTiming, at now: UInt64) {
        self.session = session
        self.timing = timing
        lastSent = now
        lastHeard = now
        clock = WatchClock(interval: timing.beatInterval * Self.nanoseconds)
        clock.look(at: now * Self.nanoseconds)
    }

    /// The number of nanoseconds, which `WatchClock` counts, in a millisecond.
    private static let nanoseconds: UInt64 = 1_000_000

    /// Returns true if the other server has sent nothing for too long, while this process was able to receive it.
    ///
    /// - Parameter heard: the last time at which something arrived.
    func isSilent(since heard: UInt64, at now: UInt64) -> Bool {
        now >= max(heard, clock.resumed / Self.nanoseconds) + timing.peerTimeout
    }

    mutating func send(_ message: TransferMessage) {
        outbox.append(SealedMessage(message, session: session, sequence: nextMessage).bytes)
        nextMessage += 1
    }

    mutating func takeOutbox() -> [[UInt8]] {
        defer { outbox = [] }
        return outbox
    }

    /// Returns the message in some bytes; `nil` if it is to be skipped.
    ///
    /// - Throws: the reason to end the session.
    mutating func read(_ bytes: [UInt8], at now: UInt64) throws(TransferFailure) -> TransferMessage? {
        let sealed: SealedMessage
        do throws(Wire.Failure) {
            sealed = try SealedMessage(bytes)
        } catch {
            throw TransferFailure("a message cannot be read: \(error)")
        }
        guard sealed.session == session, sealed.sequence >= nextExpected else { return nil }
        guard sealed.sequence == nextExpected else {
            throw TransferFailure("message \(nextExpected) is missing before message \(sealed.sequence)")
        }
        nextExpected += 1
        lastHeard = now
        return sealed.message
    }

    /// Sends a sign of life when it is time. It must be called at least once in each interval of them, so that a longer
    /// distance between two calls is known to be a pause of this process.
    ///
    /// - Throws: if the other server has been silent for too long.
    mutating func tick(at now: UInt64) throws(TransferFailure) {
        clock.look(at: now * Self.nanoseconds)
        guard !isSilent(since: lastHeard, at: now) else {
            throw TransferFailure("the other server was silent for \(now - lastHeard) ms")
        }
        if now >= lastSent + timing.beatInterval {
            send(.beat)
            lastSent = now
        }
    }
}

/// The intervals of a session, in milliseconds.
package struct TransferTiming: Sendable, Equatable {
    package var beatInterval: UInt64 = 1000
    /// A server that was silent for this long is lost.
    package var peerTimeout: UInt64 = 10_000

    package init() {}
}

/// The reason why a session ends.
package struct TransferFailure: Error, Equatable, CustomStringConvertible {
    package let description: String

    /// - Parameter description: what has failed. It may quote the other server, so its length is limited, and characters
    ///   that could change what a terminal or a log shows are replaced.
    package init(_ description: String) {
        let plain = description.unicodeScalars.prefix(Self.maxLength).map { scalar in
            switch scalar.properties.generalCategory {
            case .control, .format, .lineSeparator, .paragraphSeparator: Unicode.Scalar("?")
            default: scalar
            }
        }
        self.description = String(String.UnicodeScalarView(plain))
    }

    private static let maxLength = 4096
}
