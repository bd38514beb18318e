import ArgumentParser
import Foundation
import JSON
import KVCache
import Models
import Parallelism
import Planning
import TestSupport
import Testing
import braid

@Suite(.timeLimit(.minutes(15))) struct `A printed command` {
    private let traffic = PlannedTraffic(input: 512, output: 64, concurrency: 100, chunk: 16_384, drafts: 1)

    /// The words of `braid serve` in a line for a shell, without those that ask for hosts and start processes.
    private func words(_ line: String) throws -> [String] {
        let start = try #require(line.range(of: "braid serve"))
        return line[start.lowerBound...].split(separator: " ").dropFirst().map(String.init)
    }

    private func value(_ option: String, _ words: [String]) -> String? {
        words.firstIndex(of: option).map { words[$0 + 1] }
    }

    @Test(arguments: ["epyc-9654x2", "epyc-9654x8", "h20x8", "h20-141x16"], [ReleasedModel.v32, .v4Flash])
    func `is read by the command, whatever the layout`(hardware: String, released: ReleasedModel) throws {
        let planner = try PlanExample.planner(hardware, PlanExample.model(released))
        let device = planner.cluster.hardware
        let layouts = planner.startableLayouts
        for layout in stride(from: 0, to: layouts.count, by: layouts.count / 50 + 1).map({ layouts[$0] }) {
            let line = LaunchFlags(layout, traffic, planner.model, device, cache: .fp8).braidLine
            let words = try words(line)
            let read = try LaunchLine(words, environment: [:])
            #expect(read.withoutEffect.isEmpty && read.warnings.isEmpty)
            _ = try Braid.parseAsRoot(read.arguments)
            #expect(value("--model-path", words) == released.repository)
            #expect(value("--threads-per-rank", words) == (device.kind == .processor ? "96" : nil))
            #expect(value("--max-running-requests", words) == "100")
            let processes = planner.cluster.hosts
            #expect(line.contains("mpirun -np \(processes) ") == (processes > 1), "\(line)")
        }
    }

    @Test func `has as many processes as divide its ranks`() throws {
        var device = try PlanExample.hardware()
        device.devicesPerHost = 4
        func line(_ parallel: ParallelConfiguration) throws -> String {
            LaunchFlags(parallel, traffic, try PlanExample.model(), device, cache: .fp8).braidLine
        }
        #expect(try line(ParallelConfiguration(context: 4, expert: 4)).hasPrefix("braid serve"))
        // Two hosts have room for six ranks, three in each; for seven, no fewer than seven have as many each.
        #expect(try line(ParallelConfiguration(context: 6)).contains("mpirun -np 2 "))
        #expect(try line(ParallelConfiguration(context: 7)).contains("mpirun -np 7 "))
        #expect(try line(ParallelConfiguration(context: 8, expert: 8)).hasPrefix("printf 'Names of the 2 hosts"))
    }

    @Test func `quotes what a shell would divide`() throws {
        let model = PlanModels.model("a b", path: "/models/a b", try ReleasedModel.v32.configuration(), cache: .fp8)
        let flags = LaunchFlags(.init(), traffic, model, try PlanExample.hardware(), cache: .fp8)
        #expect(flags.braidLine.contains("--model-path '/models/a b' "))
        #expect(flags.sglangLine.hasPrefix("sglang serve --model-path '/models/a b' "))
    }

    @Test func `asks for float32 where that was planned, and the plan is faster without AMX`() throws {
        func plan(_ arguments: [String]) throws -> (text: [Substring], ttft: Double) {
            let words = ["plan", "--model-path", "v3.2", "--hardware", "epyc-9654x2"] + arguments
            let json = try JSONValue(parsing: Program.run(words + ["--json"]).output)
            let ttft = try #require(json["layouts"]?.array?.first?["ttft_parts"]?["products"]?.double)
            return (try Program.run(words).output.split(separator: "\n"), ttft)
        }
        let (usual, float32) = (try plan([]), try plan(["--dtype", "float32"]))
        #expect(abs(usual.ttft / float32.ttft - 1.75) < 1e-2)
        for line in float32.text where line.contains("braid serve") { #expect(line.contains(" --dtype float32 ")) }
        #expect(!usual.text.contains { $0.contains("braid serve") && $0.contains("--dtype") })
        #expect(float32.text.contains("numerics     float32") && !usual.text.contains("numerics     float32"))
    }

    @Test func `has prompts and answers that a small model has positions for`() throws {
        let folder = NSTemporaryDirectory() + "braid-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let demo = try String(contentsOfFile: Program.demo + "/config.json", encoding: .utf8)
        let small = demo.replacing("\"max_position_embeddings\": 131072", with: "\"max_position_embeddings\": 1024")
        try Data(small.utf8).write(to: URL(fileURLWithPath: folder + "/config.json"))
        func run(_ options: [String]) throws -> Program.Outcome {
            try Program.run(["plan", "--model-path", folder, "--hardware", "h20x1"] + options)
        }
        for (options, lengths) in [
            ([], "512 tokens in, 512 out"), (["--input-tokens", "1000"], "1000 tokens in, 24 out"),
            (["--output-tokens", "1000"], "24 tokens in, 1000 out"), (["--input-tokens", "9"], "9 tokens in, 512 out"),
        ] {
            let outcome = try run(options)
            #expect(outcome.status == 0 && outcome.output.contains(lengths), "\(outcome)")
        }
        let refused = try run(["--input-tokens", "1024"])
        #expect(refused.status != 0 && refused.errors[0].contains("more than the model's 1024 positions"))
        let compared = try run(["--compare", "\(folder),\(folder)"])
        #expect(compared.status == 0 && compared.output.contains("faster at every length"), "\(compared)")
    }

    /// Plans for two devices of two cores each, and gives the first line that was printed to a shell.
    @Test func `starts a server`() async throws {
        let folder = NSTemporaryDirectory() + "braid-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var device = try PlanExample.hardware(cores: 2)
        device.devicesPerHost = 2
        try Data(device.json.pythonText.utf8).write(to: URL(fileURLWithPath: folder + "/device.json"))
        let plan = try Program.run(["plan", "--model-path", Program.demo, "--hardware", folder + "/device.json"])
        let line = try #require(plan.output.split(separator: "\n").first { $0.contains("braid serve") })
        #expect(line.contains("--threads-per-rank 2"))
        let server = try Program.shell(line.drop { !$0.isLetter } + " --port 0")
        defer { server.end() }
        #expect(server.says("ready: demo"), "\(line)")
    }
}
