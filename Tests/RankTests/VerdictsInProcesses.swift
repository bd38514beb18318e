import Inference
import Modeling
import Parallelism
import TestSupport
import Verification

/// Verifies some cases whose ranks are divided among processes, which are simulated in this one.
///
/// - Parameter prefillProcesses: the number of processes of prefill servers.
/// - Returns: the verdict on each case, and their coverage.
func verdictsInProcesses(
    _ notations: [String], of model: any Model, _ measure: Workload.Measure, processes count: Int,
    prefillProcesses prefillCount: Int = 1
) throws -> ([Verification.Verdict], RunCoverage) {
    let transports = [InMemoryTransport.network(count), InMemoryTransport.network(prefillCount)]
    let caches = [FollowerCaches(processes: count), FollowerCaches(processes: prefillCount)]
    defer { for transport in transports.joined() { transport.leave() } }
    // The first process of both servers, then the other ones.
    let others = [count, prefillCount].enumerated().flatMap { server, count in
        (1..<max(count, 1)).map { (server: server, process: $0) }
    }
    return try onEveryRank(of: 1 + others.count) { index -> ([Verification.Verdict], RunCoverage)? in
        if index > 0 {
            let (server, process) = others[index - 1]
            let processes = Processes(transports[server][process])
            try RankFollower(model, processes) { caches[server].put($0, of: process) }.run()
            return nil
        }
        let jobs = [0, 1].map { server in
            ServerProcesses(Processes(transports[server][0])) { caches[server].take() }
        }
        defer { for job in jobs { RankFollower.dismiss(job.processes) } }
        let verification = Verification(model, measure, processes: jobs[0], prefillProcesses: jobs[1])
        let verdicts = try notations.map {
            try verification.check(VerificationCase(notation: $0, for: model.parallelShape))
        }
        return (verdicts, verification.coverage)
    }[0]!
}
