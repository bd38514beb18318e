import ArgumentParser
import Foundation
import Inference
import JSON
import KVCache
import Modeling
import Parallelism
import Planning
import Tensors

/// The command measures the time of prompts between consecutive lengths.
struct BenchPrefill: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "prefill",
        abstract: "Feeds one long random prompt to the model and measures each part of it.",
        discussion: """
            With --lengths 1K,2K,4K the second line is about positions 1024 to 2047 alone: what long contexts really \
            cost. The time to the first token is that of all parts so far. Repetitions compute everything anew.
            """)

    @OptionGroup var engineOptions: EngineOptions
    @OptionGroup var output: BenchOutputOptions

    @Option(
        help: "Prompt lengths to report at, separated by commas.", transform: ascendingCounts(1...Parsing.maxTokens))
    var lengths = [1024, 2048, 4096, 8192]

    @Option(
        name: [.customLong("repeat")], help: "How often everything is measured.",
        transform: Parsing.count(1...Parsing.maxCount))
    var repetitions = 3

    @Option(help: "Whole passes that are not counted.", transform: Parsing.count(0...Parsing.maxCount))
    var warmup = 1

    func validate() throws {
        if repetitions < 1 { throw ValidationError("--repeat: \(repetitions) is not positive; try 3") }
        if warmup < 0 { throw ValidationError("--warmup: \(warmup) is negative; try 0") }
    }

    func run() async throws {
        let job = try engineOptions.join()
        try await job.run({ try engineOptions.load().model }, lead: { try await measure(with: job) })
    }

    private func measure(with job: Job) async throws {
        try OutputFile.ofResults(output.outputFile)?.check()
        let setup = try engineOptions.benchSetup(job, requests: 1, positions: lengths.last!)
        try report(Array(try measure(setup).dropFirst(warmup)), setup)
    }

    /// A part holds the cost of computing one part of the prompt.
    private struct Part {
        let seconds: Double
        /// The processor time of all threads.
        let processorSeconds: Double
        let traffic: RankTraffic
    }

    /// Measures each part, for each pass.
    private func measure(_ setup: RankBench.Setup) throws -> [[Part]] {
        let (longest, passes) = (lengths.last!, warmup + repetitions)
        let bench = RankBench(setup, requests: 1, promptLength: longest, positions: longest, seed: output.seed)
        let progress = ProgressBar("prefill, \(passes) times \(longest) tokens")
        defer { progress.finish() }
        return try (0..<passes).map { pass in
            var start = 0
            return try lengths.map { end in
                defer { start = end }
                let (before, processor) = (bench.traffic, processSeconds())
                let seconds = try bench.prefill(request: 0, start..<end) {
                    progress.update((Double(pass) + Double($0) / Double(longest)) / Double(passes))
                }
                return Part(
                    seconds: seconds, processorSeconds: processSeconds() - processor,
                    traffic: bench.traffic.since(before))
            }
        }
    }

    /// - Parameter passes: The parts of each pass that counts.
    private func report(_ passes: [[Part]], _ setup: RankBench.Setup) throws {
        if !output.json { print(heading(setup)) }
        let operations = FloatingPointOperations(setup.model.description)
        var start = 0
        var whole = RankTraffic(ranks: setup.configuration.parallel.world)
        for (index, length) in lengths.enumerated() {
            var traffic = RankTraffic(ranks: setup.configuration.parallel.world)
            for pass in passes { traffic.add(pass[index].traffic) }
            traffic = traffic.divided(by: passes.count)
            whole.add(traffic)
            let frontier = PrefillFrontier(
                tokens: length, newTokens: length - start, newSeconds: Measurements(passes.map { $0[index].seconds }),
                seconds: Measurements(passes.map { $0[...index].reduce(0) { $0 + $1.seconds } }),
                processorSeconds: Measurements(passes.map { $0[...index].reduce(0) { $0 + $1.processorSeconds } }),
                operations: operations.count(positions: start..<length, outputs: 1), traffic: traffic)
            try output.write(frontier.json(setup), row: frontier.row)
            start = length
        }
        if !output.json, setup.configuration.parallel.world > 1 {
            print("\na whole pass, mean of \(repetitions):\n\(whole.details)")
        }
    }

    private func heading(_ setup: RankBench.Setup) -> String {
        let parallel = setup.configuration.parallel
        return "\(setup.name): \(setup.numerics), \(setup.layout), chunks of \(setup.chunk), "
            + "medians of \(repetitions) (least – most)\n"
            + columns("tokens", "new", "seconds of the new", "tokens/s", "GFLOP/s", "seconds to first token")
            + (parallel.world > 1 ? RankTraffic.titles : "")
    }
}

/// A frontier holds the measurements up to one prompt length.
private struct PrefillFrontier {
    let tokens: Int
    let newTokens: Int
    let newSeconds: Measurements
    let seconds: Measurements
    let processorSeconds: Measurements
    /// The floating-point operations of the new part.
    let operations: Double
    let traffic: RankTraffic

    private var rate: Double { Double(newTokens) / newSeconds.median! }
    private var gigaflops: Double { operations / newSeconds.median! / 1e9 }

    var row: String {
        columns(
            String(tokens), String(newTokens), spread(newSeconds), String(format: "%.1f", rate),
            String(format: "%.1f", gigaflops), spread(seconds)) + (traffic.isShared ? traffic.cells : "")
    }

    /// Returns the work of all steps up to the last token.
    private func work(_ setup: RankBench.Setup) -> StepWork {
        StepWork.prefill(
            setup.model.description, format: setup.format, tokens: tokens, chunk: setup.chunk, outputs: 1)
    }

    func json(_ setup: RankBench.Setup) -> JSONValue {
        let members = JSONMember.list([
            "kind": .string("prefill"), "model": .string(setup.name), "tokens": .integer(tokens),
            "new_tokens": .integer(newTokens), "seconds": .measured(seconds.median),
            "processor_seconds": .measured(processorSeconds.median), "seconds_min": .measured(seconds.minimum),
            "seconds_max": .measured(seconds.maximum),
            "new_seconds": .measured(newSeconds.median), "new_seconds_min": .measured(newSeconds.minimum),
            "new_seconds_max": .measured(newSeconds.maximum), "tokens_per_second": .measured(rate),
            "gflops_per_second": .measured(gigaflops), "kernels": .string(setup.kernels.rawValue),
            "threads": .integer(setup.configuration.threads), "repeat": .integer(newSeconds.count),
            "chunk": .integer(setup.chunk),
            "dtype": .string(setup.configuration.profile.name),
            "kv_cache_dtype": .string(setup.configuration.cacheType.keys.rawValue),
            "enable_deepseek_v4_fp4_indexer": .bool(setup.configuration.cacheType.hasFP4Index),
            "page_size": .integer(setup.configuration.pageSize),
        ])
        return .object(members + [work(setup).member] + traffic.members(setup.configuration.parallel))
    }
}

/// Returns the median with minimum and maximum, such as `1.234 (1.200 – 1.300)`.
func spread(_ values: Measurements) -> String {
    guard let median = values.median, let least = values.minimum, let most = values.maximum else { return "-" }
    return "\(rounded(median)) (\(rounded(least)) – \(rounded(most)))"
}

/// Returns the cells of a table row, right-aligned; cells with a spread are wider.
func columns(_ cells: String...) -> String {
    cells.map { cell in
        let width = cell.contains(" ") ? 26 : 10
        return String(repeating: " ", count: max(width - cell.count, 1)) + cell
    }.joined()
}
