import KVCache
import Parallelism
import Synchronization
import Tensors

/// The published status is a copy of the engine's status outside the engine's lock: readers never wait for the planning
/// of a step, and never delay it.
final class PublishedStatus: Sendable {
    private let status = Mutex(EngineStatus())

    var value: EngineStatus { status.withLock { $0 } }

    /// The reason of the failure that ended service; `nil` while requests are served.
    var failure: String? { status.withLock { $0.failure } }

    /// Replaces the scheduler's numbers and keeps those of the ranks.
    func publish(_ scheduler: Scheduler) {
        var new = scheduler.status
        status.withLock { status in
            new.takeRanks(of: status)
            new.failure = status.failure ?? new.failure
            status = new
        }
    }

    /// Replaces the ranks' statistics, among them how many tokens each rank owns, and the scheduler's numbers.
    func publish(_ pool: RankPool, _ scheduler: Scheduler) {
        let ranks = pool.status(computed: scheduler.computedTokens)
        status.withLock { status in
            status.layout = pool.layout
            status.threadsPerRank = pool.threadsPerRank
            status.dtype = pool.profile.name
            status.kernels = pool.kernels.rawValue
            status.keyBytesPerToken = Int(pool.cache.format.bytesPerToken)
            status.keyOwners = pool.configuration.kvSharding.ranks
            status.keyUnit = pool.configuration.kvSharding.unit
            status.ranks = ranks
        }
        publish(scheduler)
    }

    /// Records that service has ended. It is for failures after which the scheduler can no longer be changed, such as a
    /// trap.
    func fail(_ reason: String) { status.withLock { $0.failure = $0.failure ?? reason } }
}

extension EngineStatus {
    fileprivate mutating func takeRanks(of other: EngineStatus) {
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
