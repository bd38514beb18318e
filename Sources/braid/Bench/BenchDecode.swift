import ArgumentParser
import Foundation
import Inference
import JSON
import KVCache
import Modeling
import Parallelism
import Planning
import Tensors

/// The command measures the time of one more token, by context length and batch, and by the number of ranks that own
/// the keys.
struct BenchDecode: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "decode",
        abstract: "Measures the time per output token (TPOT) at several context lengths and batch sizes.",
        discussion: """
            Prompts are random and really computed once, up to the longest length; at each length on the way, tokens \
            are generated for batches whose requests share nothing. With --dcp-sizes several layouts take turns on the \
            same prompts: their time, the time of all processors together, and how many tokens a rank's memory holds.
            """)

    @OptionGroup var engineOptions: EngineOptions
    @OptionGroup var output: BenchOutputOptions

    @Option(
        help: "Context lengths to measure at, separated by commas.", transform: ascendingCounts(1...Parsing.maxTokens))
    var lengths = [1024, 4096]

    @Option(help: "Batch sizes, separated by commas.", transform: ascendingCounts(1...Parsing.maxRequests))
    var batch = [1, 8]

    @Option(
        help: "Values of --dcp-size to compare, separated by commas, such as 1,2,4,8.",
        transform: ascendingCounts(1...ParallelRequest.maxRanks))
    var dcpSizes: [Int] = []

    @Option(help: "Steps measured at each point.", transform: Parsing.count(1...Parsing.maxCount))
    var steps = 32

    @Option(help: "Steps at each point that are not counted.", transform: Parsing.count(0...Parsing.maxCount))
    var warmup = 2

    @Option(
        help: """
            Prompt tokens that are really computed, a multiple of the page size; longer contexts get copies of their \
            keys, which cost no time and are read in the same way. Default: all.
            """, transform: Parsing.count(1...Parsing.maxTokens))
    var computedTokens: Int?

    func validate() throws {
        let pageSize = engineOptions.pageSize ?? EngineConfiguration().pageSize
        if let computedTokens, computedTokens < 1 || computedTokens % pageSize != 0 {
            throw ValidationError(
                "--computed-tokens: \(computedTokens) is not a positive multiple of --page-size \(pageSize)"
            )
        }
        if steps < 1 { throw ValidationError("--steps: \(steps) is not positive; try 32") }
        if warmup < 0 { throw ValidationError("--warmup: \(warmup) is negative; try 0") }
        guard !dcpSizes.isEmpty else { return }
        if !engineOptions.parallel.dcpSize.isEmpty {
            throw ValidationError("--dcp-size: --dcp-sizes says it already; give one of them")
        }
        if engineOptions.trace != nil {
            throw ValidationError("--trace: a trace is of one layout; give --dcp-size instead of --dcp-sizes")
        }
    }

    func run() async throws {
        let job = try engineOptions.join()
        try await job.run({ try engineOptions.load().model }, lead: { try await measure(with: job) })
    }

    private func measure(with job: Job) async throws {
        try OutputFile.ofResults(output.outputFile)?.check()
        if job.count > 1, !dcpSizes.isEmpty || computedTokens != nil {
            throw CommandError(
                "--dcp-sizes and --computed-tokens fill one cache by hand, which \(job.count) processes do not share; "
                    + "leave them out, or run one process")
        }
        let setup = try engineOptions.benchSetup(
            job, requests: batch.last!, positions: lengths.last! + warmup + steps)
        let setups = try dcpSizes.isEmpty ? [setup] : dcpSizes.map { try setup.owned(by: $0, engineOptions.parallel) }
        let points = try measure(setups)
        if !output.json { print(heading(setups)) }
        for point in points { try output.write(point.json, row: dcpSizes.isEmpty ? point.row : point.comparison) }
    }

    /// Measures every parallel configuration at every length and batch size.
    private func measure(_ setups: [RankBench.Setup]) throws -> [DecodePoint] {
        let (longest, largest) = (lengths.last!, batch.last!)
        var benches: [RankBench] = []
        for setup in setups {
            benches.append(
                RankBench(
                    setup, requests: largest, promptLength: longest, positions: longest + warmup + steps,
                    seed: output.seed, computed: computedTokens, sharing: benches.first?.cache))
        }
        let progress = ProgressBar("\(largest) prompts of up to \(longest) tokens")
        defer { progress.finish() }
        var done = 0
        return try lengths.flatMap { length in
            // Generated tokens of the previous length occupy positions from `done` on; the prompt's own tokens replace
            // them.
            for request in 0..<largest {
                _ = try benches.last!.prefill(request: request, done..<length) {
                    let positions = done * largest + request * (length - done) + $0 - done
                    progress.update(Double(positions) / Double(longest * largest))
                }
            }
            done = length
            return try batch.flatMap { batch in
                let measured = try decode(benches, batch: batch, length: length)
                let first = DecodePoint(setup: setups[0], length: length, batch: batch, measured: measured[0])
                if dcpSizes.isEmpty { return [first] }
                return zip(setups, measured).map {
                    DecodePoint(setup: $0, length: length, batch: batch, measured: $1, reference: first)
                }
            }
        }
    }

    /// Measures the configurations alternately, so that other load of this machine affects all alike.
    private func decode(_ benches: [RankBench], batch: Int, length: Int) throws -> [RankBench.Steps] {
        let turns = benches.count == 1 ? 1 : min(steps, 8)
        var measured: [RankBench.Steps?] = benches.map { _ in nil }
        for turn in 0..<turns {
            let steps = steps * (turn + 1) / turns - steps * turn / turns
            for (index, bench) in benches.enumerated() {
                let more = try bench.decode(batch: batch, length: length, warmup: warmup, steps: steps)
                measured[index]?.add(more)
                measured[index] = measured[index] ?? more
            }
        }
        return measured.map { $0! }
    }

    private func heading(_ setups: [RankBench.Setup]) -> String {
        let (setup, medians) = (setups[0], "medians of \(steps) steps (least – most)")
        let parallel = setup.configuration.parallel
        if dcpSizes.isEmpty {
            return "\(setup.name): \(setup.numerics), \(setup.layout), \(medians)\n"
                + columns("context", "batch", "milliseconds per token", "tokens/s")
                + (parallel.world > 1 ? RankTraffic.titles : "")
        }
        return "\(setup.name): \(setup.numerics), keys owned by 'dcp' ranks, \(medians)\n"
            + "ratios are to the first layout; processor: all ranks together; a token takes 'KV/token' bytes of a rank's memory\n"
            + columns(
                "context", "batch", "dcp", "ranks", "milliseconds per token", "ratio",
                "processor ms per token", "ratio", "KV/token", "tokens/GiB")
    }
}

/// A decode point holds the measurements of one configuration at one context length and batch size.
private struct DecodePoint: Sendable {
    private let setup: RankBench.Setup
    private let length: Int
    private let batch: Int
    /// The seconds of each step, which generates one token for every request of the batch.
    private let seconds: Measurements
    private let processorSeconds: Measurements
    /// The traffic of all steps together.
    private let traffic: RankTraffic
    /// The ratios to the configuration it is compared with; `nil` without one.
    private let ratios: (seconds: Double, processorSeconds: Double)?

    init(
        setup: RankBench.Setup, length: Int, batch: Int, measured: RankBench.Steps, reference: DecodePoint? = nil
    ) {
        self.setup = setup
        self.length = length
        self.batch = batch
        seconds = Measurements(measured.seconds)
        processorSeconds = Measurements(measured.processorSeconds)
        traffic = measured.traffic
        let (own, processor) = (seconds.median!, processorSeconds.median!)
        ratios = reference.map { (own / $0.seconds.median!, processor / $0.processorSeconds.median!) }
    }

    private var parallel: ParallelConfiguration { setup.configuration.parallel }
    private var rate: Double { Double(batch) / seconds.median! }

    private var cost: LayoutCost {
        LayoutCost(setup.model.description, parallel, format: setup.format)
    }

    /// The number of tokens whose keys fit into one GiB of every rank's memory.
    private var tokensPerGibibyte: Int { cost.capacity(bytesPerRank: 1 << 30, owners: parallel.kvSharding.ranks) }

    private var keyBytes: Double { cost.keyBytesPerToken(owners: parallel.kvSharding.ranks) }

    var row: String {
        columns(String(length), String(batch), spread(seconds.scaled(by: 1000)), String(format: "%.1f", rate))
            + (traffic.isShared ? traffic.cells : "")
    }

    /// A row of a table that compares several configurations.
    var comparison: String {
        columns(
            String(length), String(batch), String(parallel.kvSharding.ranks), String(parallel.world),
            spread(seconds.scaled(by: 1000)), String(format: "%.2f", ratios!.seconds),
            spread(processorSeconds.scaled(by: 1000)), String(format: "%.2f", ratios!.processorSeconds),
            String(Int(keyBytes.rounded())), String(tokensPerGibibyte))
    }

    var json: JSONValue {
        var members = JSONMember.list([
            "kind": .string("decode"), "model": .string(setup.name), "tokens": .integer(length),
            "batch": .integer(batch), "steps": .integer(seconds.count), "tpot_seconds": .measured(seconds.median),
            "tpot_seconds_min": .measured(seconds.minimum), "tpot_seconds_max": .measured(seconds.maximum),
            "tpot_seconds_p90": .measured(seconds.percentile(90)), "tokens_per_second": .measured(rate),
            "processor_seconds": .measured(processorSeconds.median),
            "kernels": .string(setup.kernels.rawValue), "threads": .integer(setup.configuration.threads),
            "dtype": .string(setup.configuration.profile.name),
            "kv_cache_dtype": .string(setup.configuration.cacheType.keys.rawValue),
            "enable_deepseek_v4_fp4_indexer": .bool(setup.configuration.cacheType.hasFP4Index),
            "page_size": .integer(setup.configuration.pageSize), "dcp_size": .integer(parallel.kvSharding.ranks),
            "kv_bytes_per_token_and_rank": .amount(keyBytes), "tokens_per_gib": .integer(tokensPerGibibyte),
        ])
        if let ratios {
            members += JSONMember.list([
                "tpot_ratio": .measured(ratios.seconds), "processor_ratio": .measured(ratios.processorSeconds),
            ])
        }
        let work = StepWork(
            setup.model.description, format: setup.format,
            requests: Array(repeating: length..<length + 1, count: batch), outputs: batch)
        return .object(members + [work.member] + traffic.members(parallel))
    }
}

extension RankBench.Setup {
    /// Returns the same setup with keys owned by `ranks` ranks.
    fileprivate func owned(by ranks: Int, _ options: ParallelOptions) throws -> RankBench.Setup {
        var request = options.request()
        request.dcpSize = ranks
        var configuration = configuration
        do throws(ParallelRequest.Refusal) {
            configuration.parallel = try request.resolve(for: model.parallelShape)
        } catch {
            throw CommandError(
                (["--dcp-sizes \(ranks):"] + error.problems.map(\.description)).joined(separator: "\n"))
        }
        return RankBench.Setup(
            name: name, model: model, configuration: configuration, chunk: chunk, kernels: kernels, trace: nil, job: job
        )
    }
}
