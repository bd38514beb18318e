import Foundation
package import Parallelism
import Synchronization
package import Tensors

/// Laws of the way from one member to the next.
extension TransportLaws {
    /// How many sends a member may be ahead of the receiver without waiting, at least.
    private static let ahead = 2

    /// One parcel goes from the first member to the last; each one checks it and sends one of its own.
    package static func pass(_ group: any ProcessGroup, _ draw: inout SplitMix64, _ scratch: Scratch) throws -> [String]
    {
        let (mailboxes, count, columns) = (draw.next(), counts(1, &draw)[0], 1 + draw.below(40))
        var problems: [String] = []
        if group.place > 0 {
            let arrived = scratch.rows(count, columns)
            try group.receive(into: arrived)
            if let found = difference(arrived, mailboxes, group.place - 1) { problems.append("receive: \(found)") }
        }
        if group.place + 1 < group.size { try group.send(rows(mailboxes, group.place, count, columns, in: scratch)) }
        return problems
    }

    /// Bursts of parcels: each member sends several before anybody receives one, and they arrive in order. What was sent
    /// may be overwritten at once.
    package static func stages(_ seed: UInt64, rounds: Int) -> Law {
        { member in
            let (group, meeting) = (member.everybody(0), member.everybody(1))
            return try repeated(rounds, seed, member) { draw in
                let (mailboxes, columns) = (draw.next(), 1 + draw.below(40))
                let sizes = (0..<ahead).map { _ in counts(1, &draw)[0] }
                for (number, size) in sizes.enumerated() where group.place + 1 < group.size {
                    let pendingDispatch = rows(
                        mailboxes &+ UInt64(number), group.place, size, columns, in: member.scratch)
                    try group.send(pendingDispatch)
                    pendingDispatch.fill(.nan)
                }
                // Nobody would come here if a send waited for its receiver.
                try meeting.run(.barrier)
                var problems: [String] = []
                for (number, size) in sizes.enumerated() where group.place > 0 {
                    let arrived = member.scratch.rows(size, columns)
                    try group.receive(into: arrived)
                    if let found = difference(arrived, mailboxes &+ UInt64(number), group.place - 1) {
                        problems.append("parcel \(number): \(found)")
                    }
                }
                return problems
            }
        }
    }

    /// A member whose receivers are slow comes to wait, and what it sent still arrives in order. What the
    /// last rank was sent is counted in `sent`.
    package static func blocks(_ sent: SentCounts, sendBuffers: Int) -> Law {
        { member in
            let group = member.everybody()
            var problems: [String] = []
            if group.place + 1 == group.size {
                // Until nobody gets any further.
                var before = -1
                while sent.total != before {
                    before = sent.total
                    Thread.sleep(forTimeInterval: 0.1)
                }
                if before >= sendBuffers {
                    problems.append("all of \(sendBuffers) parcels were sent to one that took none")
                }
            }
            for number in 0..<sendBuffers {
                let mark = member.scratch.mark()
                defer { member.scratch.reset(to: mark) }
                if group.place > 0 {
                    let arrived = member.scratch.rows(3, 5)
                    try group.receive(into: arrived)
                    if let found = difference(arrived, UInt64(number), 0) {
                        problems.append("parcel \(number): \(found)")
                    }
                }
                if group.place + 1 < group.size {
                    try group.send(rows(UInt64(number), 0, 3, 5, in: member.scratch))
                    if group.place + 2 == group.size { sent.add() }
                }
            }
            return Array(problems.prefix(3))
        }
    }
}

/// How much was sent to the last rank, for whoever waits for that to end.
package final class SentCounts: Sendable {
    private let count = Atomic(0)
    package var total: Int { count.load(ordering: .acquiring) }
    package init() {}
    package func add() { count.add(1, ordering: .acquiringAndReleasing) }
}
