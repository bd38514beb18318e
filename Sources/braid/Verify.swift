import ArgumentParser
import Checkpoints
import Foundation
import Inference
import KVCache
import Modeling
import Models
package import Parallelism
import Planning
import Tensors
import Verification

/// The command verifies, on a checkpoint, that parallel configurations are bitwise equal to one rank.
struct Verify: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Compares parallel configurations with one rank on a checkpoint, bit by bit.",
        discussion: """
            Serves mixes of random requests on one rank and on many, and compares every token, log-probability and \
            logit. In a share of the cases (--from) another server, of another layout, computes the prompts and sends its \
            keys over a link in memory, which may fail. Varied are layouts, threads of a rank, chunk sizes, page sizes, types of the KV cache and numerics \
            profiles (compared with one rank that has the same), what is found in the prefix cache, and the mixes, of which one preempts. Without flags for ranks \
            it takes all layouts up to --max-ranks, or a sample of them; with some, such as --tp-size 8 --cp-size 4, \
            that one layout. Layouts that cut a sum where one rank does not are only equal to rounding, are compared in \
            float32, and are reported so. Exit status 0 if nothing differs.
            """)

    @Option(name: [.customLong("model-path"), .customLong("model")], help: "The model's directory.")
    var modelPath: String

    @Option(help: "auto: the checkpoint's weights; dummy: random ones from config.json alone.")
    var loadFormat: ModelDirectory.LoadFormat = .auto

    @Option(
        help: """
            The numerics profile of all cases: float32 or bfloat16, for INT8 weights int8 or int8-float32. auto is the one that braid \
            serve takes for this checkpoint, and the others in a share of the cases.
            """)
    var dtype = ProfileChoice.auto

    @Option(
        help:
            "Element type of the KV cache: auto, as braid serve takes it, float32, bfloat16, fp8_e4m3; default: all types."
    )
    var kvCacheDtype: CacheChoice?

    @OptionGroup var indexCache: IndexCacheOptions

    @Option(help: "Instruction-set level: reference, neon, avx2, avx512, amx; default: the best this processor has.")
    var kernels: Kernels.Level?

    @Option(
        help: "Ranks of a layout, those of all stages together, at most.",
        transform: Parsing.count(1...ParallelRequest.maxRanks))
    var maxRanks = 8

    @Option(
        help: "How rows are assigned to context ranks, separated by commas: interleave, zigzag, contiguous.",
        transform: partitionStrategies)
    var strategies = PartitionStrategy.allCases

    @Option(
        name: [.customLong("layouts"), .customLong("cases")],
        help: "Cases to run, at most; each is another layout, under other conditions, while there are any.",
        transform: Parsing.count(1...Parsing.maxCount))
    var cases = 500

    @Option(
        name: .customLong("from"),
        help: """
            Cases whose prompts another server computes: none, some (a fifth), all; default: some, and none in several \
            processes.
            """)
    var prefillShare: VerificationPlan.PrefillShare?

    @Option(help: "Of the prompts, the draws and the choice of cases.", transform: Parsing.seed())
    var seed: UInt64 = 1

    @Option(
        help: "Tokens of the longest prompts; default: a quarter more than the keys a row selects.",
        transform: Parsing.count(1...Parsing.maxTokens))
    var longestPrompt: Int?

    @Option(
        help: """
            Run this case alone, written as it was printed, such as "cp4 ep4 zigzag alltoall chunk29 page16 fp8_e4m3 \
            warm draft0 mixed threads2 odd-blocks bf16 from pp2 chunk9 page64 draft0 cached-by-both link-cuts"; what is \
            left out is one rank, chunk-1, page16, float32, cold, draft0, mixed, threads1, usual-blocks, f32, and behind \
            'from' one rank, chunk-1, page16, draft0, cached-by-both, link-whole.
            """)
    var only: String?

    @Flag(help: "Print JSON lines.")
    var json = false

    @OptionGroup(title: "Ranks") var parallel: ParallelOptions

    @OptionGroup(title: "Processes") var processes: ProcessOptions

    func validate() throws {
        if only != nil, dtype != .auto {
            throw ValidationError("--dtype: with --only, write f32, bf16, int8 or int8-f32 into the case")
        }
        if only != nil, let kvCacheDtype {
            throw ValidationError("--kv-cache-dtype: with --only, write \(kvCacheDtype.rawValue) into the case")
        }
        if only != nil, indexCache.hasFP4Index {
            throw ValidationError(
                "--enable-deepseek-v4-fp4-indexer: with --only, write \(CacheType.withFP4Index[0].rawValue) or another of "
                    + "these types into the case")
        }
        if let threads = parallel.threadsPerRank {
            guard (1...64).contains(threads) else {
                throw ValidationError("--threads-per-rank: \(threads) is not between 1 and 64; try 2")
            }
            if only != nil {
                throw ValidationError("--threads-per-rank: with --only, write threads\(threads) into the case")
            }
        }
        if only != nil, let prefillShare {
            throw ValidationError("--from: with --only, write the prefill server into the case; omit '\(prefillShare)'")
        }
        guard cases > 0 else { throw ValidationError("--layouts: \(cases) is not positive; try 500") }
    }

    func run() async throws {
        // A verification names the exact checkpoint, so the digest covers every byte.
        let location = try ModelLocation(modelPath)
        let digest = try ContentDigest(model: location.directory, weights: loadFormat == .auto, .everyByte)
        let job = try Job.join(
            processes, Job.Checkpoint(path: location.directory, loadFormat: loadFormat, patience: 30, digest: digest),
            agreed: [.init("--load-format", "\(loadFormat)"), .init("--dtype", "\(dtype)")])
        try await job.run({ try load().model }, lead: { try verify(job, digest) })
    }

    private func verify(_ job: Job, _ digest: ContentDigest) throws {
        let (directory, model, profiles) = try load()
        let measure = try measure(directory.description)
        let (plan, layouts) = try plan(
            model, longestPrompt: measure.longestPrompt, profiles, severalProcesses: job.processes != nil)
        let verification = Verification(
            model, measure, try settings(job), processes: job.processes.map { ServerProcesses($0) })
        var report = VerificationReport(self, plan, layouts: layouts, digest: digest)
        for candidate in plan.cases {
            report.begin(candidate)
            let start = ContinuousClock.now
            let verdict = try verification.check(candidate)
            report.end(
                candidate, verdict, mustBeEqual: verification.mustBeEqual(candidate),
                seconds: (ContinuousClock.now - start) / .seconds(1))
        }
        report.finish(verification.coverage)
        if report.differing > 0 { throw ExitCode(1) }
    }

    /// Loads the model; the first of the profiles is the one that most cases have.
    private func load() throws -> (directory: ModelDirectory, model: any Model, profiles: [NumericsProfile]) {
        let directory = try ModelDirectory(modelPath)
        try indexCache.check(directory.description)
        let weights = try directory.openWeights(loadFormat)
        let progress = ProgressBar("loading \(modelPath)")
        defer { progress.finish() }
        let model = try directory.model(weights, drafts: directory.hasNextTokenBlock(weights)) { progress.update($0) }
        let first = dtype.profile(of: directory, weights)
        try first.check(directory, weights)
        let others = NumericsProfile.allCases.filter { $0 != first && $0.differs(for: directory, weights) }
        return (directory, model, [first] + (dtype == .auto ? others : []))
    }

    private func measure(_ model: ModelDescription) throws -> Workload.Measure {
        var measure = Workload.Measure(
            selecting: model.selection?.firstPosition, entry: model.longestEntry,
            contextLength: model.contextLength, vocabularySize: model.vocabularySize)
        if let longestPrompt {
            let most = min(model.contextLength - Workload.maxNewTokensOfMix, 32_768)
            guard (1...max(most, 1)).contains(longestPrompt) else {
                throw CommandError("--longest-prompt: \(longestPrompt) is not between 1 and \(most)")
            }
            measure.longestPrompt = longestPrompt
        }
        return measure
    }

    private func settings(_ job: Job) throws -> Verification.Settings {
        if let kernels, Kernels(kernels) == nil {
            let levels = Kernels.available.map(\.level.rawValue).joined(separator: ", ")
            throw CommandError("--kernels: this processor has no \(kernels.rawValue) kernels; legal: \(levels)")
        }
        var settings = Verification.Settings()
        settings.seed = seed
        settings.kernels = kernels ?? job.commonLevel
        return settings
    }

    /// Returns the plan, and the number of parallel configurations its cases were chosen from.
    private func plan(
        _ model: any Model, longestPrompt: Int, _ profiles: [NumericsProfile], severalProcesses: Bool
    ) throws -> (VerificationPlan, layouts: Int) {
        if severalProcesses, let prefillShare, prefillShare != .none {
            throw CommandError(
                "--from: keys are sent between servers of one process each; omit '\(prefillShare.rawValue)', or start "
                    + "one process")
        }
        let shape = model.parallelShape
        // With these thresholds query-gather attention is used always, or in the later half of the longest prompts.
        let minKeys = [1, max(2, longestPrompt / 2)]
        let all = LayoutMatrix(shape, maxRanks: maxRanks, strategies: strategies, minKeys: minKeys).layouts
        var layouts = all
        let request = parallel.request()
        if request != ParallelRequest() {
            do throws(ParallelRequest.Refusal) {
                layouts = [try request.resolve(for: shape)]
            } catch {
                throw CommandError(error.description)
            }
        }
        let conditions = ServingConditions.all(
            longestPrompt: longestPrompt,
            cacheTypes: cacheTypes(of: model.description, profiles[0]),
            canDraft: model.canDraft, alignment: model.positionAlignment,
            threads: parallel.threadsPerRank.map { [$0] } ?? [1, 2], profiles: profiles)
        if let only { return (try plan(only, model, severalProcesses: severalProcesses), 1) }
        let plan = VerificationPlan(layouts, conditions, limit: cases, seed: seed)
            .withPrefillServers(prefillShare ?? (severalProcesses ? .none : .some), all, seed: seed)
        return (plan.comparingRoundedLayoutsInF32(shape), layouts.count)
    }

    /// Returns the types of caches that the options allow: all that the model may have, by default.
    private func cacheTypes(of model: ModelDescription, _ profile: NumericsProfile) -> [CacheType] {
        let keys = kvCacheDtype.map { $0.keys(in: profile) }
        return model.cacheTypes.filter {
            (keys == nil || keys == $0.keys) && ($0.hasFP4Index || !indexCache.hasFP4Index)
        }
    }

    /// Returns the plan of the one case that was asked for.
    private func plan(_ only: String, _ model: any Model, severalProcesses: Bool) throws -> VerificationPlan {
        do throws(NotationError) {
            let candidate = try VerificationCase(notation: only, for: model.parallelShape)
            let ranks = max(candidate.layout.world, candidate.prefill?.layout.world ?? 0)
            if ranks > ParallelRequest.maxRanks {
                throw NotationError("\(ranks) ranks, and \(ParallelRequest.maxRanks) is the most")
            }
            let drafts = max(candidate.conditions.drafts, candidate.prefill?.drafts ?? 0)
            if drafts > 0 && !model.canDraft {
                throw NotationError("'draft\(drafts)': this checkpoint has no next-token block; use draft0")
            }
            if let problem = model.description.problem(with: candidate.conditions.cacheType) {
                throw NotationError("'\(candidate.conditions.cacheType.rawValue)': \(problem)")
            }
            if severalProcesses && candidate.prefill != nil {
                throw NotationError("'from': keys are sent between servers of one process each; start one process")
            }
            return VerificationPlan(only: candidate)
        } catch {
            throw CommandError("--only: \(error)")
        }
    }

    /// Returns the command line that runs one case again.
    func command(repeating candidate: VerificationCase) -> String {
        var words = ["braid verify --model-path '\(modelPath)'"]
        if loadFormat != .auto { words.append("--load-format \(loadFormat.rawValue)") }
        if let kernels { words.append("--kernels \(kernels.rawValue)") }
        if let longestPrompt { words.append("--longest-prompt \(longestPrompt)") }
        return (words + ["--seed \(seed) --only \"\(candidate.notation)\""]).joined(separator: " ")
    }
}

/// Reads a list such as `interleave,zigzag` in the spellings of `--cp-strategy`.
///
/// - Throws: `CommandError` that names the part that is not a strategy.
package func partitionStrategies(_ text: String) throws -> [PartitionStrategy] {
    let given = try text.split(separator: ",", omittingEmptySubsequences: false).map { field in
        let name = field.trimmingCharacters(in: .whitespaces)
        guard let strategy = PartitionStrategy(argument: name) else {
            throw CommandError("'\(name)' is no strategy; there are interleave, zigzag and contiguous")
        }
        return strategy
    }
    return PartitionStrategy.allCases.filter { given.contains($0) }
}

extension VerificationPlan.PrefillShare: ExpressibleByArgument {}
