import ArgumentParser
import Foundation
import Inference
import KVCache
import Models
import Parallelism
import Tensors
import Tokenization

/// How long one more token takes, by context length and batch.
struct BenchDecode: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "decode",
        abstract: "Measures the time per output token (TPOT) at several context lengths and batch sizes.",
        discussion: """
            Prompts are random and really computed once, up to the longest length; at each length on the way, tokens \
            are generated for batches whose requests share nothing.
            """)

    @OptionGroup var engineOptions: EngineOptions
    @OptionGroup var output: BenchOutputOptions

    @Option(help: "Context lengths to measure at, separated by commas.", transform: ascendingCounts)
    var lengths = [1024, 4096]

    @Option(help: "Batch sizes, separated by commas.", transform: ascendingCounts)
    var batch = [1, 8]

    @Option(help: "Steps measured at each point.")
    var steps = 32

    @Option(help: "Steps at each point that are not counted.")
    var warmup = 2

    @Option(
        help: """
            Prompt tokens that are really computed, a multiple of the page size; longer contexts get copies of their \
            keys, which cost no time and are read in the same way. Default: all.
            """)
    var computedTokens: Int?

    func validate() throws {
        if let computedTokens, computedTokens < 1 || computedTokens % engineOptions.pageSize != 0 {
            throw ValidationError(
                "--computed-tokens: \(computedTokens) is not a positive multiple of --page-size \(engineOptions.pageSize)"
            )
        }
        if steps < 1 { throw ValidationError("--steps: \(steps) is not positive; try 32") }
        if warmup < 0 { throw ValidationError("--warmup: \(warmup) is negative; try 0") }
    }

    func run() async throws {
        let setup = try engineOptions.benchSetup(
            requests: batch.last!, positions: lengths.last! + warmup + steps)
        let points = try measure(setup)
        if !output.json { print(heading(setup)) }
        for point in points { try output.write(point.json(setup), row: point.row) }
    }

    private func measure(_ setup: RankBench.Setup) throws -> [DecodePoint] {
        let (longest, largest, steps) = (lengths.last!, batch.last!, warmup + steps)
        let bench = RankBench(
            setup, requests: largest, promptLength: longest, positions: longest + steps, seed: output.seed,
            computed: computedTokens)
        let progress = ProgressBar("\(largest) prompts of up to \(longest) tokens")
        defer { progress.finish() }
        var done = 0
        return try lengths.flatMap { length in
            // Generated tokens of the length before lie from `done` on; the prompt's own replace them.
            for request in 0..<largest {
                _ = try bench.prefill(request: request, done..<length) {
                    let positions = done * largest + request * (length - done) + $0 - done
                    progress.update(Double(positions) / Double(longest * largest))
                }
            }
            done = length
            return try batch.map { batch in
                let outcome = try bench.decode(batch: batch, length: length, warmup: warmup, steps: self.steps)
                return DecodePoint(
                    length: length, batch: batch, seconds: Measurements(outcome.seconds), traffic: outcome.traffic)
            }
        }
    }

    private func heading(_ setup: RankBench.Setup) -> String {
        let parallel = setup.configuration.parallel
        return "\(setup.name): \(setup.kernels.rawValue), \(parallel), medians of \(steps) steps (least – most)\n"
            + columns("context", "batch", "milliseconds per token", "tokens/s")
            + (parallel.world > 1 ? RankTraffic.titles : "")
    }
}

/// What was measured at one context length and batch size.
private struct DecodePoint: Sendable {
    let length: Int
    let batch: Int
    /// Of each step, which gives every request of the batch one token.
    let seconds: Measurements
    /// Of all steps together.
    let traffic: RankTraffic

    private var rate: Double { Double(batch) / seconds.median! }

    var row: String {
        columns(String(length), String(batch), spread(seconds.scaled(by: 1000)), String(format: "%.1f", rate))
            + (traffic.isShared ? traffic.cells : "")
    }

    func json(_ setup: RankBench.Setup) -> JSONValue {
        let members = JSONMember.list([
            "kind": .string("decode"), "model": .string(setup.name), "tokens": .count(length),
            "batch": .count(batch), "steps": .count(seconds.count), "tpot_seconds": .measured(seconds.median),
            "tpot_seconds_min": .measured(seconds.minimum), "tpot_seconds_max": .measured(seconds.maximum),
            "tpot_seconds_p90": .measured(seconds.percentile(90)), "tokens_per_second": .measured(rate),
            "kernels": .string(setup.kernels.rawValue), "threads": .count(setup.configuration.parallel.world),
            "kv_cache_dtype": .string(setup.configuration.cacheType.rawValue),
            "page_size": .count(setup.configuration.pageSize),
        ])
        let work = StepWork(
            setup.model.configuration, cacheType: setup.configuration.cacheType,
            requests: Array(repeating: length..<length + 1, count: batch), outputs: batch)
        return .object(members + [work.member] + traffic.members(setup.configuration.parallel))
    }
}
