import Parallelism

/// An order is a message of the first process to the others.
package enum Order {
    /// Starts new ranks, and ends those of the epoch before.
    case start(RankSettings)
    case step(PlanUpdate)
    /// Sends back entries of the process's cache. What later steps write there does not matter.
    case pack(CacheOrder)
    /// Writes entries into the process's cache, before any later step reads them.
    case place(CacheOrder)
    /// Ends the ranks after the steps they have received.
    case stop
    /// Ends the job.
    case leave

    package var bytes: [UInt8] {
        switch self {
        case .start(let settings): Wire.bytes(of: settings, after: [0])
        case .step(let update): Wire.bytes(of: update, after: [1])
        case .stop: [2]
        case .leave: [3]
        case .pack(let order): Wire.bytes(of: order, after: [4])
        case .place(let order): Wire.bytes(of: order, after: [5])
        }
    }

    package init(_ bytes: [UInt8]) throws(Wire.Failure) {
        let rest = Array(bytes.dropFirst())
        switch bytes.first {
        case 0: self = .start(try Wire.value(in: rest))
        case 1: self = .step(try Wire.value(in: rest))
        case 2 where rest.isEmpty: self = .stop
        case 3 where rest.isEmpty: self = .leave
        case 4: self = .pack(try Wire.value(in: rest))
        case 5: self = .place(try Wire.value(in: rest))
        default: throw Wire.Failure(description: "no order that this version knows")
        }
    }
}

/// A sent report is a step report as it is sent to the first process.
struct SentReport: WireCodable {
    var report: StepReport
    /// The time of sending, in nanoseconds of the sender's `Meter.now`.
    var at: UInt64

    static var empty: SentReport { SentReport(report: .empty, at: 0) }

    mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&report)
        try wire.pass(&at)
    }
}

/// A heartbeat payload tells with each heartbeat what the ranks of a process do.
struct HeartbeatPayload: WireCodable {
    var epoch: UInt64
    var ranks: [RankHeartbeat]

    /// The progress of one rank.
    struct RankHeartbeat: WireCodable {
        /// The nanoseconds since the rank's last progress.
        var age: UInt64
        var isWaiting: Bool
        var description: String

        static var empty: RankHeartbeat { RankHeartbeat(age: 0, isWaiting: false, description: "") }

        mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
            try wire.pass(&age)
            try wire.pass(&isWaiting)
            try wire.pass(&description)
        }
    }

    static var empty: HeartbeatPayload { HeartbeatPayload(epoch: 0, ranks: []) }

    mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&epoch)
        try wire.pass(&ranks)
    }
}
