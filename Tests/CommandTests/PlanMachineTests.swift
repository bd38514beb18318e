import ArgumentParser
import Foundation
import JSON
import KVCache
import Modeling
import Models
import Parallelism
import Planning
import TestSupport
import Testing
import braid

@Suite struct `A layout for this machine` {
    private let demo = Golden.root + "/Models/demo"

    @Test(arguments: [1, 2, 3]) func `has no more ranks than cores, and says why`(cores: Int) throws {
        let chosen = try AutomaticLayout(ModelDirectory(demo), cache: .float32, chunk: 1024, cores: cores)
        let shape = try ModelDirectory(demo).description.parallelShape
        let parallel = try chosen.options.request(environment: [:]).resolve(for: shape)
        #expect(parallel.world <= cores)
        #expect(chosen.reasons[0].contains(parallel.notation) && chosen.reasons[0].contains("\(cores) cores"))
    }

    @Test func `is a measured device that a file keeps`() async throws {
        let path = NSTemporaryDirectory() + "braid-\(UUID().uuidString).json"
        defer { try? FileManager.default.removeItem(atPath: path) }
        func run(_ arguments: [String]) async throws {
            var plan = try #require(try Braid.parseAsRoot(["plan"] + arguments) as? any AsyncParsableCommand)
            try await plan.run()
        }
        try await run(["--measure", path, "--model-path", demo])
        let data = try #require(FileManager.default.contents(atPath: path))
        let hardware = try Hardware(JSONValue(parsing: data))
        #expect(hardware.efficiencies != nil && hardware.rate(.f32) > 1e9 && hardware.bandwidth > 1e8)
        try await run(["--hardware", path, "--model-path", demo, "--json"])
    }

    @Test func `is refused beside sizes`() async throws {
        var serve = try #require(
            try Braid.parseAsRoot(["serve", "--model-path", demo, "--plan", "auto", "--tp-size", "2"])
                as? any AsyncParsableCommand)
        let error = await #expect(throws: (any Error).self) { try await serve.run() }
        #expect("\(try #require(error))".contains("leave out their sizes"))
    }
}

@Suite(.timeLimit(.minutes(15))) struct `A plan without devices` {
    private func core(_ cores: Int) throws -> Hardware {
        var core = try PlanExample.hardware()
        core.devicesPerHost = cores
        return core
    }

    /// Ranks, and threads of each.
    @Test(arguments: [(1, 1, 1), (2, 2, 1), (3, 2, 1), (6, 4, 1), (8, 8, 1), (96, 8, 12)])
    func `is for all cores of this machine`(cores: Int, ranks: Int, threads: Int) throws {
        let machine = try ThisMachine(core(cores), "made up")
        let cluster = machine.cluster { _ in true }
        #expect(cluster.devices == ranks && cluster.hardware.cores == threads)
        #expect(cluster.hardware.rate(.f32) == Double(threads) * 1e12)
        #expect(machine.cluster { $0.devices == 2 }.devices == (cores > 1 ? 2 : 1))
        #expect(machine.cluster { _ in false }.devices == 1)
    }

    @Test func `says in its first line what was assumed, and how to name others`() throws {
        let caches = NSTemporaryDirectory() + "braid-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: caches) }
        func firstLine(_ arguments: [String] = []) throws -> String {
            let run = try Program.run(
                ["plan", "--model-path", Program.demo] + arguments,
                environment: ["XDG_CACHE_HOME": caches])
            #expect(run.status == 0, "\(run.errors)")
            return String(run.output.prefix { $0 != "\n" })
        }
        let byPeaks = try firstLine()
        #expect(byPeaks.hasPrefix("assumed") && byPeaks.contains("its peaks"), "\(byPeaks)")
        #expect(byPeaks.contains("--hardware") && byPeaks.contains("--measure auto"))
        #expect(try firstLine(["--hardware", "epyc-9654"]).hasPrefix("model"))

        let path = try #require(ThisMachine.standardPath(["XDG_CACHE_HOME": caches]))
        #expect(path.hasPrefix(caches))
        try FileManager.default.createDirectory(
            at: URL(fileURLWithPath: path).deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(core(2).json.pythonText.utf8).write(to: URL(fileURLWithPath: path))
        let measured = try firstLine()
        #expect(measured.contains(path) && measured.contains("measured") && measured.contains("--hardware"))
        #expect(try firstLine(["--scaling", "cp=1..2"]).contains(path) == true)
        let json = try JSONValue(parsing: firstLine(["--json"]))
        #expect(json["assumed"]?.string?.contains(path) == true && json["devices"]?.integer == 2)
    }
}
