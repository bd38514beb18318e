import Foundation
import Parallelism
import Tensors

/// Laws of waiting members when a rank fails.
extension TransportLaws {
    /// The operations in which members wait for one that fails.
    package enum Waiting: String, CaseIterable, Sendable {
        case barrier, allGather, allToAll, receive, send
    }

    /// Fails one member while the others wait: they throw its failure soon, and so does everything they start later,
    /// whatever other failures are raised.
    package static func failure(while waiting: Waiting) -> Law {
        { member in
            let (group, meeting) = (member.everybody(0), member.everybody(1))
            // Rows are sent from the first member to the last, so the member that fails is the one the others wait for.
            let failing = waiting == .receive ? 0 : member.size - 1
            let failure = GroupFailure(rank: failing, reason: "injected")
            do {
                try meeting.run(.barrier)
            } catch let error as GroupFailure where error == failure {
                // The failure has overtaken the barrier's last message, since this member was slow.
            }
            let began = DispatchTime.now().uptimeNanoseconds
            if member.rank == failing {
                Thread.sleep(forTimeInterval: 0.05)
                member.raise(failure)
            } else {
                do {
                    try wait(waiting, group, member.scratch)
                    return ["\(waiting) went on without rank \(failing)"]
                } catch let error as GroupFailure where error == failure {
                    let seconds = Double(DispatchTime.now().uptimeNanoseconds - began) * 1e-9
                    if seconds > 30 { return ["\(waiting) threw after \(seconds) seconds"] }
                }
            }
            member.raise(GroupFailure(rank: member.rank, reason: "a consequence"))
            return later(group, meeting, failure)
        }
    }

    private static func wait(_ waiting: Waiting, _ group: any ProcessGroup, _ scratch: Scratch) throws {
        var draw = SplitMix64(seed: 1)
        switch waiting {
        case .barrier: try group.run(.barrier)
        case .allGather: _ = try startAllGather(group, &draw, scratch).land()
        case .allToAll: _ = try startAllToAll(group, &draw, scratch).land()
        case .receive: try group.receive(into: scratch.rows(1, 1))
        case .send: for _ in 0..<1000 { try group.send(rows(1, 0, 1, 1, in: scratch)) }
        }
    }

    /// Returns the groups in which a collective can still be started or throws another failure: the group whose
    /// collective failed and an unrelated one are checked.
    private static func later(
        _ group: any ProcessGroup, _ meeting: any ProcessGroup, _ failure: GroupFailure
    ) -> [String] {
        [group, meeting].compactMap { group in
            do throws(GroupFailure) {
                try group.start(.barrier)
                return "a collective was started after the failure"
            } catch {
                return error == failure ? nil : "heard of '\(error)', not of '\(failure)'"
            }
        }
    }
}
