import Inference
import Modeling
import Models
import Parallelism
import TestSupport
import Testing

/// A place names a parallel configuration of one, two or four ranks, and the rank that fails.
struct Place: Sendable, CustomTestStringConvertible {
    let parallel: ParallelConfiguration
    let rank: Int
    var testDescription: String { "rank \(rank) of \(parallel)" }

    static let all = [
        Place(parallel: ParallelConfiguration(), rank: 0),
        Place(parallel: ParallelConfiguration(context: 2, expert: 2), rank: 1),
        Place(parallel: ParallelConfiguration(data: 2, tensor: 2, expert: 4, exchange: .allToAll), rank: 2),
        Place(parallel: ParallelConfiguration(context: 2, expert: 2, pipeline: 2), rank: 1),
        Place(parallel: ParallelConfiguration(context: 2, expert: 2, pipeline: 2), rank: 2),
    ]

    /// Tells whether the rank that fails computes logits.
    var isInLastStage: Bool { rank >= parallel.world - parallel.stageRanks }
}

/// - Parameter watchdog: the seconds without progress after which a rank counts as hanging. It is short only where one hangs.
@inline(never)
func faultyEngine(
    _ parallel: ParallelConfiguration, threads: Int = 1, watchdog: Int = 300,
    _ wrap: (any Model) -> any Model = { $0 }, restarts: Bool = false
) throws -> Engine {
    var configuration = EngineConfiguration()
    configuration.pageSize = 4
    configuration.parallel = parallel
    configuration.threadsPerRank = threads
    configuration.watchdogTimeout = watchdog
    configuration.restartsOnFailure = restarts
    return Engine(wrap(try Golden("v32").directory.load()), configuration)
}

/// A bound that only ends what hangs: a machine that others use may be slow for seconds.
let hangBound = Duration.seconds(60)

let someRequests = (0..<5).map { index in
    var sampling = SamplingParameters()
    sampling.seed = UInt64(index)
    sampling.maxNewTokens = 4 + index
    return GenerationRequest(prompt: (0..<(2 + index * 6)).map { Int32($0 * 7 + index) }, sampling: sampling)
}

/// Submits requests and reads their events to the end. A request that is refused because ranks have failed counts as
/// failed.
@inline(never)
func outcomes(_ engine: Engine, _ requests: [GenerationRequest] = someRequests) async -> [Answer] {
    let generations = requests.map { request in
        Result { () throws(EngineError) in try engine.submit(request) }
    }
    var outcomes: [Answer] = []
    for generation in generations {
        switch generation {
        case .success(let generation): outcomes += await answers([generation])
        case .failure(let error): outcomes.append(Answer(failure: "\(error)"))
        }
    }
    return outcomes
}
