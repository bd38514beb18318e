import DeepSeekV32
import Foundation
import Inference
import Modeling
import Models
import Parallelism
import Synchronization
import TestSupport
import Testing

/// An event of a trace in the file's format, with times in microseconds.
private struct TraceEvent: Decodable {
    let ph: String
    let name: String
    let pid: Int
    let tid: Int
    let ts: Double?
    let dur: Double?
    let args: Arguments

    struct Arguments: Decodable {
        let name: String?
        let number: Int?
        let rows: Int?
    }

    var begin: Double { ts! }
    var end: Double { ts! + dur! }

    func contains(_ other: TraceEvent) -> Bool {
        // Times are written in nanoseconds, which doubles do not hold exactly.
        pid == other.pid && tid == other.tid && begin <= other.begin + 0.01 && other.end <= end + 0.01
    }
}

@Suite(.timeLimit(.minutes(15))) struct `A trace` {
    private static let parallel = ParallelConfiguration(context: 2, expert: 2, pipeline: 2)

    /// Runs a prompt of 21 tokens and two more steps, and returns the file's events.
    @inline(never)
    private static func events() async throws -> [TraceEvent] {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("trace-\(UUID()).json").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        var configuration = EngineConfiguration()
        configuration.pageSize = 4
        configuration.parallel = parallel
        let trace = try TraceWriter(path: path, parallel)
        let engine = Engine(try Golden("v32").directory.load(), configuration, trace: trace)
        var sampling = SamplingParameters()
        sampling.maxNewTokens = 3
        let request = GenerationRequest(prompt: (0..<21).map { Int32($0) }, sampling: sampling)
        for await _ in try engine.submit(request).events {}
        engine.stop()
        trace.close()
        return try JSONDecoder().decode([TraceEvent].self, from: Data(contentsOf: URL(fileURLWithPath: path)))
    }

    @Test(.enabled(if: FileManager.default.fileExists(atPath: "/dev/full")))
    func `that finds no room says so once, and service goes on`() async throws {
        var configuration = EngineConfiguration()
        configuration.pageSize = 4
        configuration.parallel = Self.parallel
        let lines = Mutex<[String]>([])
        let trace = try TraceWriter(path: "/dev/full", Self.parallel) { line in lines.withLock { $0.append(line) } }
        let engine = Engine(try Golden("v32").directory.load(), configuration, trace: trace)
        defer { engine.stop() }
        for _ in 0..<3 { #expect(await outcomes(engine).allSatisfy { $0.failure == nil }) }
        trace.close()
        let problem = try #require(trace.problem)
        #expect(lines.withLock { $0 } == [problem])
        #expect(problem.hasPrefix("--trace: writing to '/dev/full' failed"))
    }

    @Test func `has a lane for each rank, named with its place`() async throws {
        let names = try await Self.events().filter { $0.ph == "M" }
        #expect(names.filter { $0.name == "process_name" }.map(\.args.name) == ["engine", "stage 0", "stage 1"])
        let lanes = names.filter { $0.name == "thread_name" }
        #expect(
            lanes.map(\.args.name) == [
                "scheduler", "rank 0, context 0", "rank 1, context 1", "rank 2, context 0", "rank 3, context 1",
            ])
        #expect(lanes.map(\.pid) == [0, 1, 1, 2, 2])
        #expect(lanes.map(\.tid) == [0, 0, 1, 2, 3])
    }

    @Test func `has collectives in layers in steps`() async throws {
        let model = try Golden("v32").directory.load()
        let events = try await Self.events().filter { $0.ph == "X" }
        for rank in 0..<4 {
            let lane = events.filter { $0.pid > 0 && $0.tid == rank }
            #expect(lane.allSatisfy { $0.pid == 1 + rank / 2 })
            let steps = lane.filter { $0.name == "step" }
            #expect(steps.map(\.args.number) == [0, 1, 2])
            for layer in Self.parallel.layers(ofStage: rank / 2, total: model.parallelShape.layers) {
                let layers = lane.filter { $0.name == "layer \(layer)" }
                #expect(layers.count == 3)
                for (step, layer) in zip(steps, layers) {
                    #expect(step.contains(layer))
                    #expect(lane.contains { $0.name == "keys" && layer.contains($0) })
                }
            }
            #expect(lane.count { $0.name == "choose" } == (rank < 2 ? 0 : 3))
            #expect(lane.contains { $0.name == "stage" } == (rank >= 2))
            // Two events of one thread are nested or one after the other.
            for (index, first) in lane.enumerated() {
                for second in lane[..<index] {
                    let isApart = first.end <= second.begin + 0.01 || second.end <= first.begin + 0.01
                    #expect(isApart || first.contains(second) || second.contains(first), "\(first) and \(second)")
                }
            }
        }
        let rows = (0..<2).map { stage in
            (0..<3).map { step in
                events.filter { $0.pid == stage + 1 && $0.name == "step" && $0.args.number == step }
                    .reduce(0) { $0 + $1.args.rows! }
            }
        }
        #expect(rows == [[21, 1, 1], [21, 1, 1]])
        #expect(Set(events.filter { $0.pid == 0 }.map(\.name)) == ["plan", "finish"])
    }

    @Test func `that cannot be written is refused with the reason`() throws {
        let error = #expect(throws: TraceError.self) { try TraceWriter(path: "/nowhere/at/all.json", Self.parallel) }
        #expect(error?.problem == "No such file or directory")
    }

    @Test(arguments: [false, true])
    func `is no pipe, and nothing waits for one's reader`(hasReader: Bool) throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("trace-\(UUID())").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        try #require(unsafe mkfifo(path, 0o600) == 0)
        let reader = hasReader ? unsafe open(path, O_RDONLY | O_NONBLOCK) : -1
        defer { if hasReader { close(reader) } }
        let error = #expect(throws: TraceError.self) { try TraceWriter(path: path, Self.parallel) }
        #expect(error?.problem == "it is a pipe")
    }

    @Test func `may go to a device that keeps nothing`() async throws {
        var configuration = EngineConfiguration()
        configuration.pageSize = 4
        configuration.parallel = Self.parallel
        let trace = try TraceWriter(path: "/dev/null", Self.parallel)
        let engine = Engine(try Golden("v32").directory.load(), configuration, trace: trace)
        defer { engine.stop() }
        #expect(await outcomes(engine).allSatisfy { $0.failure == nil })
        trace.close()
        #expect(trace.problem == nil)
    }
}
