import Foundation
package import Parallelism
import Synchronization
package import Tensors

/// Laws of messages from one member to the next.
extension TransportLaws {
    /// The number of sends that a member must be able to make without waiting for the receiver.
    private static let ahead = 2

    /// Sends a message from each member to the next; each member checks the one it receives before it sends its own.
    package static func pass(_ group: any ProcessGroup, _ draw: inout SplitMix64, _ scratch: Scratch) throws -> [String]
    {
        let (rowSeed, count, columns) = (draw.next(), counts(1, &draw)[0], 1 + draw.below(40))
        var problems: [String] = []
        if group.place > 0 {
            let arrived = scratch.rows(count, columns)
            try group.receive(into: arrived)
            if let found = difference(arrived, rowSeed, group.place - 1) { problems.append("receive: \(found)") }
        }
        if group.place + 1 < group.size { try group.send(rows(rowSeed, group.place, count, columns, in: scratch)) }
        return problems
    }

    /// Sends bursts of messages: each member sends several before the next receives any, and they arrive in order. Sent
    /// rows may be overwritten at once.
    package static func stages(_ seed: UInt64, rounds: Int) -> Law {
        { member in
            let (group, meeting) = (member.everybody(0), member.everybody(1))
            return try repeated(rounds, seed, member) { draw in
                let (rowSeed, columns) = (draw.next(), 1 + draw.below(40))
                let sizes = (0..<ahead).map { _ in counts(1, &draw)[0] }
                for (number, size) in sizes.enumerated() where group.place + 1 < group.size {
                    let sentRows = rows(
                        rowSeed &+ UInt64(number), group.place, size, columns, in: member.scratch)
                    try group.send(sentRows)
                    sentRows.fill(.nan)
                }
                // If a send waited for its receiver, no member would reach this barrier.
                try meeting.run(.barrier)
                var problems: [String] = []
                for (number, size) in sizes.enumerated() where group.place > 0 {
                    let arrived = member.scratch.rows(size, columns)
                    try group.receive(into: arrived)
                    if let found = difference(arrived, rowSeed &+ UInt64(number), group.place - 1) {
                        problems.append("message \(number): \(found)")
                    }
                }
                return problems
            }
        }
    }

    /// Checks that a member waits if its receiver is slow, and that its messages still arrive in order. `sent` counts
    /// the messages sent to the last member.
    package static func blocks(_ sent: SentCounts, sendBuffers: Int) -> Law {
        { member in
            let group = member.everybody()
            var problems: [String] = []
            if group.place + 1 == group.size {
                // Waits until no member makes progress.
                var before = -1
                while sent.total != before {
                    before = sent.total
                    Thread.sleep(forTimeInterval: 0.1)
                }
                if before >= sendBuffers {
                    problems.append("all of \(sendBuffers) messages were sent to a member that received none")
                }
            }
            for number in 0..<sendBuffers {
                let mark = member.scratch.mark()
                defer { member.scratch.reset(to: mark) }
                if group.place > 0 {
                    let arrived = member.scratch.rows(3, 5)
                    try group.receive(into: arrived)
                    if let found = difference(arrived, UInt64(number), 0) {
                        problems.append("message \(number): \(found)")
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

/// The number of messages sent to the last member, readable by its thread.
package final class SentCounts: Sendable {
    private let count = Atomic(0)
    package var total: Int { count.load(ordering: .acquiring) }
    package init() {}
    package func add() { count.add(1, ordering: .acquiringAndReleasing) }
}
