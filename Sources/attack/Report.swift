import ArgumentParser
import Foundation

/// The measurements that are made beside an attack.
struct Beside {
    let streams: WatchedStreams
    /// The times between events before the attack, in seconds.
    let quiet: [Double]
    let probe: HealthProbe
}

/// Prints the outcome of an attack, with a command for each failure that repeats it.
final class Report {
    private let server: ServerProcess
    private let reproduction: String
    private var accounting: Accounting
    private var (passed, failed) = (0, 0)

    init(server: ServerProcess, reproduction: String) {
        self.server = server
        self.reproduction = reproduction
        accounting = Accounting(server)
    }

    /// Notes what the server uses now, with which it is compared at the end.
    func begin() { accounting = Accounting(server) }

    /// Prints everything.
    ///
    /// - Throws: an exit code if anything has failed.
    func finish(_ campaign: Campaign, _ kinds: [any AttackKind], _ beside: Beside? = nil, _ warmup: Campaign? = nil)
        throws
    {
        for kind in kinds {
            let findings = campaign.findings(of: kind.name) + (warmup?.findings(of: kind.name) ?? [])
            let count = campaign.count(of: kind.name) + (warmup?.count(of: kind.name) ?? 0)
            check(
                "\(kind.name): \(count) cases",
                findings.map { seed, text in
                    "\(text)\n        repeat: \(reproduction) --kind \(kind.name) --case \(seed)"
                } + (count == 0 ? ["no case ran"] : []))
        }
        if let beside { report(beside) }
        if server.hasEnded {
            let last = campaign.recent.map { "\($0.kind) \($0.seed)" }.joined(separator: ", ")
            check("the server lives", ["it has ended; the last cases: \(last); it said: \(server.log)"])
        } else {
            for (name, problem) in accounting.checks() { check(name, problem.map { [$0] } ?? []) }
        }
        say("\(passed) passed, \(failed) failed")
        if failed > 0 { throw ExitCode.failure }
    }

    private func report(_ beside: Beside) {
        let (gaps, compared, refused) = beside.streams.takeMeasurements()
        check(
            "other streams: \(compared) compared bit for bit, \(refused) refused with 429",
            Array(beside.streams.findings.prefix(5)) + (compared == 0 ? ["none was compared"] : []))
        for (name, times) in [("quiet", beside.quiet), ("under attack", gaps)] {
            say(
                "    time between tokens, \(name): p50 \(times.milliseconds(0.5)), p99 \(times.milliseconds(0.99)), "
                    + "longest \(times.milliseconds(1))")
        }
        let times = beside.probe.times
        check("/health: \(times.count) answers", Array(beside.probe.findings.prefix(5)))
        say("    p50 \(times.milliseconds(0.5)), p99 \(times.milliseconds(0.99)), longest \(times.milliseconds(1))")
    }

    private func check(_ name: String, _ problems: [String]) {
        if problems.isEmpty {
            passed += 1
            say("ok \(name)")
        } else {
            failed += 1
            say("FAIL \(name)")
            for problem in problems { print("    \(problem)") }
        }
    }
}

/// Prints a line at once, even into a pipe.
func say(_ line: String) { FileHandle.standardOutput.write(Data((line + "\n").utf8)) }
