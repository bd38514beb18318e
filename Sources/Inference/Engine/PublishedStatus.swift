import Parallelism
import Synchronization

/// What others may know of an engine, kept apart from its lock: whoever asks never waits for a step to be planned, nor
/// makes the engine wait.
final class PublishedStatus: Sendable {
    private let status = Mutex(EngineStatus())

    var value: EngineStatus { status.withLock { $0 } }

    /// The failure that ended service.
    var failure: String? { status.withLock { $0.failure } }

    /// Takes the scheduler's numbers; what is known of the ranks stays.
    func publish(_ scheduler: Scheduler) {
        var new = scheduler.status
        status.withLock { status in
            new.takeRanks(of: status)
            new.failure = status.failure ?? new.failure
            status = new
        }
    }

    /// Takes what the ranks of a pool did, and how many tokens they own of the requests that are being computed.
    func publish(_ pool: RankPool, _ scheduler: Scheduler) {
        let ranks = pool.status(computed: scheduler.computedTokens)
        status.withLock { status in
            status.layout = pool.layout
            status.threadsPerRank = pool.threadsPerRank
            status.keyOwners = pool.configuration.kvSharding.ranks
            status.keyUnit = pool.configuration.kvSharding.unit
            status.ranks = ranks
        }
        publish(scheduler)
    }

    /// Says that service has ended, for a reason that the scheduler can no longer be told.
    func fail(_ reason: String) { status.withLock { $0.failure = $0.failure ?? reason } }
}

extension EngineStatus {
    fileprivate mutating func takeRanks(of other: EngineStatus) {
        layout = other.layout
        threadsPerRank = other.threadsPerRank
        keyOwners = other.keyOwners
        keyUnit = other.keyUnit
        ranks = other.ranks
    }
}

extension RankPool {
    /// What each rank did since the start. Takes time that grows with the ranks and the requests.
    ///
    /// - Parameter computed: for each request its data group, and how many tokens of it have their keys in the cache.
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
