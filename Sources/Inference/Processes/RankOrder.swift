import Parallelism

/// What the first process tells the others.
enum Order {
    /// New ranks; those before are over.
    case start(RankSettings)
    case step(PlanUpdate)
    /// The ranks end when they have done what they were given.
    case stop
    /// The job is done.
    case leave

    var bytes: [UInt8] {
        switch self {
        case .start(let settings): [0] + Wire.bytes(of: settings)
        case .step(let update): [1] + Wire.bytes(of: update)
        case .stop: [2]
        case .leave: [3]
        }
    }

    init(_ bytes: [UInt8]) throws(Wire.Failure) {
        let rest = Array(bytes.dropFirst())
        switch bytes.first {
        case 0: self = .start(try Wire.value(in: rest))
        case 1: self = .step(try Wire.value(in: rest))
        case 2 where rest.isEmpty: self = .stop
        case 3 where rest.isEmpty: self = .leave
        default: throw Wire.Failure(description: "no order that this version knows")
        }
    }
}

/// A report on its way to the first process.
struct SentReport: WireCodable {
    var report: StepReport
    /// When it was sent, in nanoseconds of the sender's `Meter.now`.
    var at: UInt64

    static var empty: SentReport { SentReport(report: .empty, at: 0) }

    mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&report)
        try wire.pass(&at)
    }
}

/// What a process says of its ranks with each heartbeat.
struct HeartbeatPayload: WireCodable {
    var epoch: UInt64
    var ranks: [RankHeartbeat]

    /// What one rank does.
    struct RankHeartbeat: WireCodable {
        /// Nanoseconds since it began.
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
