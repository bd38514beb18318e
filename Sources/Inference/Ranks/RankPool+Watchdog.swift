import Dispatch
import Parallelism
import Synchronization

extension RankPool {
    /// Waits until a result may be ready or a rank has failed, and runs the watchdog meanwhile.
    func waitForProgress() {
        let isWorking = state.withLock { state in
            if state.pending.isEmpty { state.clock.rest() } else { state.clock.look(at: Meter.now()) }
            return !state.pending.isEmpty
        }
        guard failure == nil, isWorking else { return progress.wait() }
        let interval = watchInterval
        _ = progress.wait(timeout: .now() + .nanoseconds(Int(interval)))
        // Under load the wait may never time out, so the time of the last check decides.
        let isDue = state.withLock { state in
            let now = Meter.now()
            state.clock.look(at: now)
            guard now >= state.lastWatch + interval else { return false }
            state.lastWatch = now
            return true
        }
        if isDue { watch() }
    }

    /// Raises the alarm if the ranks of a step make no progress, and names the ranks that the others wait for.
    func watch() {
        state.withLock { $0.clock.look(at: Meter.now()) }
        guard let late = lateRanks() else { return }
        let list = late.map { "rank \($0.rank) \($0.snapshot.description)" }.joined(separator: "; ")
        world.alarm.raise(
            GroupFailure(
                rank: late[0].rank,
                reason: "no progress for \(patience / 1_000_000_000) s (--watchdog-timeout): \(list)"))
    }

    /// Returns the ranks that delay the first incomplete step, if none of them has made progress within the timeout;
    /// `nil` otherwise.
    private func lateRanks() -> [(rank: Int, snapshot: RankProgress.Snapshot)]? {
        // No array leaves the lock while other threads append to it: each append would copy it.
        let first = state.withLock { state in
            state.pending.first { $0.reports.count < configuration.world }
                .map { (began: max($0.began, state.clock.resumed), came: Set($0.reports.map(\.rank))) }
        }
        guard let first else { return nil }
        let absent = (0..<configuration.world).filter { !first.came.contains($0) }.map {
            (rank: $0, snapshot: snapshot(of: $0))
        }
        // A waiting rank is delayed by one that does not wait; if all wait, they wait for each other.
        let busy = absent.filter { !$0.snapshot.isWaiting }
        let responsible = busy.isEmpty ? absent : busy
        let now = Meter.now()
        let isLate = responsible.allSatisfy { now > max($0.snapshot.since, first.began) + patience }
        return isLate && !responsible.isEmpty ? responsible : nil
    }
}
