import Dispatch
import Parallelism
import Synchronization

extension RankPool {
    /// Waits until there may be something to take, and looks after the ranks meanwhile.
    func waitForProgress() {
        let isWorking = state.withLock { state in
            if state.pending.isEmpty { state.clock.rest() } else { state.clock.look(at: Meter.now()) }
            return !state.pending.isEmpty
        }
        guard failure == nil, isWorking else { return progress.wait() }
        let interval = watchInterval
        _ = progress.wait(timeout: .now() + .nanoseconds(Int(interval)))
        // Also where requests come and go all the time and the wait never ends by itself.
        let isDue = state.withLock { state in
            let now = Meter.now()
            state.clock.look(at: now)
            guard now >= state.lastWatch + interval else { return false }
            state.lastWatch = now
            return true
        }
        if isDue { watch() }
    }

    /// Raises the alarm if a step's ranks make no progress: in the name of those the others wait for.
    func watch() {
        state.withLock { $0.clock.look(at: Meter.now()) }
        guard let late = lateRanks() else { return }
        let list = late.map { "rank \($0.rank) \($0.snapshot.description)" }.joined(separator: "; ")
        world.alarm.raise(
            GroupFailure(
                rank: late[0].rank,
                reason: "no progress for \(patience / 1_000_000_000) s (--watchdog-timeout): \(list)"))
    }

    /// The ranks that keep the first step that is not complete from ending, if none of them has done anything for too long.
    private func lateRanks() -> [(rank: Int, snapshot: RankProgress.Snapshot)]? {
        // No array leaves the lock whose other owner goes on writing to it.
        let first = state.withLock { state in
            state.pending.first { $0.reports.count < configuration.world }
                .map { (began: max($0.began, state.clock.resumed), came: Set($0.reports.map(\.rank))) }
        }
        guard let first else { return nil }
        let absent = (0..<configuration.world).filter { !first.came.contains($0) }.map {
            (rank: $0, snapshot: snapshot(of: $0))
        }
        // Those that wait are held up by those that do not; where all wait, it is for each other.
        let busy = absent.filter { !$0.snapshot.isWaiting }
        let responsible = busy.isEmpty ? absent : busy
        let now = Meter.now()
        let isLate = responsible.allSatisfy { now > max($0.snapshot.since, first.began) + patience }
        return isLate && !responsible.isEmpty ? responsible : nil
    }
}
