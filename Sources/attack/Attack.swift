import ArgumentParser
import Foundation
import Inference
import Serving

/// Attacks a server of its own, the program's command line and its reading of checkpoints for a bounded time, all on
/// this machine, and checks that nothing is harmed: no trap, no status of a server's error for a client's fault, no
/// change of a bit of other streams, no page, descriptor or memory lost.
@main
struct Attack: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "attack", abstract: "Attacks braid serve, on this machine only, and checks that it stands.")

    @Option(help: "The program under attack.")
    var program = ".build/release/braid"

    @Option(help: "The directory of a valid model.")
    var modelPath = "Models/demo"

    @Option(help: "For how long.")
    var seconds = 60.0

    @Option(help: "The seed of all cases; default: a random one, which is printed.")
    var seed: UInt64?

    @Option(help: "Only this kind of attack; repeatable.")
    var kind: [String] = []

    @Option(name: .customLong("case"), help: "Only the case of this seed, once, of the kind that --kind gives.")
    var onlyCase: UInt64?

    @Option(parsing: .unconditionalSingleValue, help: "An argument for braid serve; repeatable.")
    var serve: [String] = []

    func run() throws {
        let files = FileLimit.raise()
        preventCoreFiles()
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("attack-\(getpid())").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let (program, model) = (absolute(program), absolute(modelPath))
        // What commands write by relative names stays here.
        guard FileManager.default.changeCurrentDirectoryPath(folder) else { throw Finding("cannot use \(folder)") }
        let seed = seed ?? UInt64.random(in: 0 ... .max)
        say("seed \(seed)")
        let server = try ServerProcess(
            program: program, modelPath: model, options: Self.options + serve, directory: folder)
        let source = RequestSource(model: server.model)
        let target = Program(path: program, directory: folder)
        let light: [any AttackKind] = [
            Framing(port: server.port, targets: RequestSource.targets), Bodies(port: server.port, source: source),
            Members(port: server.port, source: source),
            Connections(port: server.port, model: server.model, maxConnections: files / 2 - 200),
        ]
        let overload: [any AttackKind] = [Overload(port: server.port, model: server.model)]
        let commands: [any AttackKind] = [
            Checkpoints(program: target, model: model), try CommandLines(program: target, model: model),
        ]
        let groups = [
            Workers(kinds: light.filter(isWanted), count: 6),
            Workers(kinds: overload.filter(isWanted), count: 1, pause: 3000),
            Workers(kinds: commands.filter(isWanted), count: 1),
        ].filter { !$0.kinds.isEmpty }
        guard !groups.isEmpty else { throw ValidationError("there is no such kind of attack") }
        let report = Report(
            server: server,
            reproduction: "\(CommandLine.arguments[0]) --program \(self.program) --model-path \(modelPath)")
        if let onlyCase {
            let campaign = Campaign(seed: seed, seconds: 600)
            for kind in groups.flatMap(\.kinds) { campaign.run(kind, seed: onlyCase) }
            try report.finish(campaign, groups.flatMap(\.kinds))
        } else {
            try attack(server, groups, seed, report)
        }
    }

    /// A small server, so that its limits are reached; it checks its own accounts after every step.
    private static let options = [
        "--context-length", "4096", "--max-total-tokens", "8192", "--max-running-requests", "16",
        "--max-queued-requests", "64",
        "--check-invariants", "--tuning", "off",
    ]

    /// Threads that run cases of the same kinds.
    private struct Workers {
        var kinds: [any AttackKind]
        var count: Int
        /// The longest time between two cases of a thread, in milliseconds.
        var pause = 0
    }

    private func attack(_ server: ServerProcess, _ groups: [Workers], _ seed: UInt64, _ report: Report) throws {
        let streams = WatchedStreams(port: server.port, model: server.model)
        // Twice: the second time prefixes are cached.
        for _ in 0..<4 { for index in 0..<streams.count { streams.run(index) } }
        let quiet = streams.takeMeasurements()
        say("the server is ready; warming up")
        // What is taken once, such as the pages of the cache, threads and buffers, is no leak.
        try server.fillCache()
        let warmup = Campaign(seed: seed &+ 1, seconds: min(seconds / 6, 20))
        run(groups, warmup, server)
        report.begin()
        say("attacking for \(Int(seconds)) seconds")
        let (probe, campaign) = (HealthProbe(port: server.port), Campaign(seed: seed, seconds: seconds))
        run(
            groups, campaign, server,
            beside: (0..<streams.count).map { index in { streams.run(index) } } + [
                {
                    probe.run()
                    usleep(20_000)
                }
            ])
        let kinds = groups.flatMap(\.kinds)
        if !server.hasEnded {
            campaign.runMissing(of: kinds)
            // Now nothing else keeps them from being served.
            for index in 0..<streams.count { streams.run(index) }
        }
        try report.finish(campaign, kinds, Beside(streams: streams, quiet: quiet.gaps, probe: probe), warmup)
    }

    /// Runs a campaign with a thread for each worker and for each action beside, which is repeated until the end.
    private func run(
        _ groups: [Workers], _ campaign: Campaign, _ server: ServerProcess, beside actions: [@Sendable () -> Void] = []
    ) {
        let group = DispatchGroup()
        func start(_ body: @escaping @Sendable () -> Void) {
            group.enter()
            let thread = Thread {
                body()
                group.leave()
            }
            thread.start()
        }
        for action in actions { start { while !campaign.isOver { action() } } }
        var worker: UInt64 = 0
        for workers in groups {
            for _ in 0..<workers.count {
                worker += 1
                let (kinds, pause, number) = (workers.kinds, workers.pause, worker)
                start { campaign.run(kinds, worker: number, pause: pause) }
            }
        }
        while group.wait(timeout: .now() + 0.2) == .timedOut {
            if server.hasEnded { campaign.end() }
        }
    }

    private func isWanted(_ attack: any AttackKind) -> Bool { kind.isEmpty || kind.contains(attack.name) }

    private func absolute(_ path: String) -> String { URL(fileURLWithPath: path).path }

    private func preventCoreFiles() {
        // A crash is a finding, and needs no image of the memory.
        var none = rlimit(rlim_cur: 0, rlim_max: 0)
        unsafe setrlimit(__rlimit_resource_t(RLIMIT_CORE.rawValue), &none)
    }
}
