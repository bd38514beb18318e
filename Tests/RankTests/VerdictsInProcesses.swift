import Inference
import Modeling
import Parallelism
import TestSupport
import Verification

/// Verifies some cases whose ranks are divided among processes, which are simulated in this one.
///
/// - Returns: the verdict on each case, and their coverage.
func verdictsInProcesses(
    _ notations: [String], of model: any Model, _ measure: Workload.Measure, processes count: Int
) throws -> ([Verification.Verdict], RunCoverage) {
    let transports = InMemoryTransport.network(count)
    defer { for transport in transports { transport.leave() } }
    return try onEveryRank(of: count, limit: 150) { process -> ([Verification.Verdict], RunCoverage)? in
        let processes = Processes(transports[process])
        guard process == 0 else {
            try RankFollower(model, processes).run()
            return nil
        }
        defer { RankFollower.dismiss(processes) }
        let verification = Verification(model, measure, processes: processes)
        let verdicts = try notations.map {
            try verification.check(VerificationCase(notation: $0, for: model.parallelShape))
        }
        return (verdicts, verification.coverage)
    }[0]!
}
