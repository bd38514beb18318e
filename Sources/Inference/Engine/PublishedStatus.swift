import KVCache
import Parallelism
import Synchronization
import Tensors

/// The published status is a copy of the engine's status outside the engine's lock: readers never wait for the planning
/// of a step, and never delay it.
final class PublishedStatus: Sendable {
    private struct State {
        var status = EngineStatus()
        /// The time of the last publication, in nanoseconds of `Meter.now`.
        var published: UInt64 = Meter.now()
    }

    private let state = Mutex(State())

    var value: EngineStatus { state.withLock { $0.status } }

    /// The reason of the failure that ended service; `nil` while requests are served.
    var failure: String? { state.withLock { $0.status.failure } }

    /// Replaces the scheduler's numbers and keeps those of the ranks.
    func publish(_ scheduler: Scheduler) {
        var new = scheduler.status
        state.withLock { state in
            let now = Meter.now()
            new.takeRanks(of: state.status)
            new.addTime(Double(now - state.published) * 1e-9, after: state.status)
            new.failure = state.status.failure ?? new.failure
            state.status = new
            state.published = now
        }
    }

    /// Replaces the ranks' statistics, among them how many tokens each rank owns, and the scheduler's numbers.
    func publish(_ pool: RankPool, _ scheduler: Scheduler) {
        let ranks = pool.status(computed: scheduler.computedTokens)
        state.withLock { state in
            state.status.settings = pool.engineSettings
            state.status.layout = pool.layout
            state.status.threadsPerRank = pool.threadsPerRank
            state.status.dtype = pool.profile.name
            state.status.kernels = pool.kernels.rawValue
            state.status.keyBytesPerToken = Int(pool.cache.format.bytesPerToken)
            state.status.keyOwners = pool.configuration.kvSharding.ranks
            state.status.keyUnit = pool.configuration.kvSharding.unit
            state.status.ranks = ranks
        }
        publish(scheduler)
    }

    /// Records that service has ended. It is for failures after which the scheduler can no longer be changed, such as a
    /// trap.
    func fail(_ reason: String) { state.withLock { $0.status.failure = $0.status.failure ?? reason } }
}

extension EngineStatus {
    /// Adds up the time for which the previous status lasted.
    fileprivate mutating func addTime(_ seconds: Double, after previous: EngineStatus) {
        busySeconds = previous.busySeconds + (previous.running > 0 ? seconds : 0)
        runningSeconds = previous.runningSeconds + Double(previous.running) * seconds
    }

    fileprivate mutating func takeRanks(of other: EngineStatus) {
        settings = other.settings
        layout = other.layout
        threadsPerRank = other.threadsPerRank
        dtype = other.dtype
        kernels = other.kernels
        keyBytesPerToken = other.keyBytesPerToken
        keyOwners = other.keyOwners
        keyUnit = other.keyUnit
        ranks = other.ranks
    }
}

extension RankPool {
    /// Returns the statistics of each rank since the start, in time proportional to the ranks and requests.
    ///
    /// - Parameter computed: For each request its data group and how many of its tokens have keys in the cache.
    func status(computed: [(group: Int, tokens: Int)]) -> [RankStatus] {
        var ranks = status
        let ownedTokens = (0..<configuration.data).map { group in
            configuration.kvSharding.counts(of: computed.lazy.filter { $0.group == group }.map(\.tokens))
        }
        let groupRanks = configuration.context * configuration.tensor
        for rank in ranks.indices {
            let group = rank / groupRanks % configuration.data
            ranks[rank].ownedTokens = ownedTokens[group][ranks[rank].keyOwner]
        }
        return ranks
    }
}
