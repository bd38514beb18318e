// The laws of transports over MPI: mpirun -np 2 transport-laws SEED
//
// Every process runs the laws on one, two and three ranks of its own; the first process prints the results.
import Foundation
import Parallelism
import Tensors
import TestSupport

guard let seed = CommandLine.arguments.dropFirst().first.flatMap({ UInt64($0) }) else {
    print("usage: mpirun -np N transport-laws SEED")
    exit(2)
}
let processes: Processes
do {
    processes = Processes(try MPITransport.join())
} catch {
    print("\(error)")
    exit(1)
}
var report = LawReport(processes)
for ranksHere in 1...3 {
    let ranks = ranksHere * processes.count
    let rounds = max(4, 48 / ranks)
    report.check("gathers uneven parts bit for bit", ranks, TransportLaws.allGather(seed, rounds: rounds))
    report.check("transposes a matrix of row blocks", ranks, TransportLaws.allToAll(seed, rounds: rounds))
    report.check(
        "shares what was written with each process once", ranks,
        TransportLaws.share(seed, rounds: rounds, copies: processes.count == 1 ? 0 : processes.count))
    report.check(
        "delivers rows to the processes that they are for", ranks, TransportLaws.deliver(seed, rounds: rounds))
    report.check("lets members work between start and finish", ranks, TransportLaws.workBetween(seed, rounds: rounds))
    report.check(
        "keeps several groups apart, in any order", ranks, TransportLaws.severalGroups(seed, rounds: rounds / 2))
    report.check("survives any sequence of operations", ranks, TransportLaws.anything(seed, operations: 2 * rounds))
    report.check("sends rows to the next member in order", ranks, TransportLaws.stages(seed, rounds: rounds))
    for waiting in TransportLaws.Waiting.allCases where ranks > 1 {
        report.check("ends waiting when a member fails: \(waiting)", ranks, TransportLaws.failure(while: waiting))
    }
}
report.finish()

/// Runs laws one after the other, each with an epoch of its own, and counts those that passed and failed.
struct LawReport {
    private let processes: Processes
    private var epoch: UInt64 = 0
    private var passed = 0
    private var failed = 0

    init(_ processes: Processes) { self.processes = processes }

    mutating func check(_ name: String, _ ranks: Int, _ law: @escaping TransportLaws.Law) {
        let placement = Placement(ranks: ranks, processes: processes.count)
        let world = ProcessWorld(processes, placement, epoch: nextEpoch())
        var problems: [String]
        do {
            problems = try TransportLaws.run(law, on: placement.ranks(of: processes.process), of: ranks, world)
        } catch {
            problems = ["\(error)"]
        }
        for problem in problems { print("    \(problem)") }
        let found = together(problems.count)
        guard processes.process == 0 else { return }
        if found == 0 { passed += 1 } else { failed += 1 }
        print("\(found == 0 ? "ok" : "FAIL") \(ranks) ranks in \(processes.count) processes: \(name)")
    }

    /// Returns the sum of all processes' numbers. It returns only after all processes have called it.
    private mutating func together(_ number: Int) -> Int {
        let placement = Placement(ranks: processes.count, processes: processes.count)
        let member = Member(
            processes.process, of: processes.count, ProcessWorld(processes, placement, epoch: nextEpoch()))
        let (part, whole) = (member.scratch.rows(1, 1), member.scratch.rows(processes.count, 1))
        let counts = member.scratch.indices(processes.count)
        part[0, 0] = Float(number)
        counts.fill(1)
        do throws(GroupFailure) {
            try member.everybody().run(.allGather(part: part, counts: counts, whole: whole))
        } catch {
            print("    \(error)")
            return 1
        }
        return (0..<processes.count).reduce(0) { $0 + Int(whole[$1, 0]) }
    }

    private mutating func nextEpoch() -> UInt64 {
        epoch += 1
        return epoch
    }

    func finish() -> Never {
        if processes.process == 0 { print("\(passed) passed, \(failed) failed") }
        processes.leave()
        exit(failed == 0 ? 0 : 1)
    }
}
