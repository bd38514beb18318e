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
        abstract: "Compares layouts of ranks with one rank on a checkpoint, bit by bit.",
        discussion: """
            Serves mixes of random requests on one rank and on many, and compares every token, log-probability and \
            logit. Varied are layouts, threads of a rank, chunk sizes, page sizes, types of the KV cache (compared with \
            one rank that has the same), what is found in the prefix cache, and the mixes, of which one preempts. Without flags for ranks \
            it takes all layouts up to --max-ranks, or a sample of them; with some, such as --tp-size 8 --cp-size 4, \
            that one layout. Layouts that cut a sum where one rank does not are only equal to rounding, and are \
            reported so. Exit status 0 if nothing differs.
            """)

    @Option(name: [.customLong("model-path"), .customLong("model")], help: "The model's directory.")
    var modelPath: String

    @Option(help: "auto: the checkpoint's weights; dummy: random ones from config.json alone.")
    var loadFormat: ModelDirectory.LoadFormat = .auto

    @Option(help: "Element type of the KV cache: float32, bfloat16, fp8_e4m3; default: all of them.")
    var kvCacheDtype: CacheType?

    @Option(help: "Instruction-set level: reference, neon, avx2, avx512; default: the best this processor has.")
    var kernels: Kernels.Level?

    @Option(
        help: "Ranks of a layout, those of all stages together, at most.",
        transform: Parsing.count(1...Parsing.maxRanks))
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

    @Option(help: "Of the prompts, the draws and the choice of cases.")
    var seed: UInt64 = 1

    @Option(
        help: "Tokens of the longest prompts; default: a quarter more than the keys a row selects.",
        transform: Parsing.count(1...Parsing.maxTokens))
    var longestPrompt: Int?

    @Option(
        help: """
            Run this case alone, written as it was printed, such as "cp4 ep4 zigzag alltoall chunk29 page16 fp8_e4m3 \
            warm draft0 mixed threads2 odd-blocks"; what is left out is one rank, chunk-1, page16, float32, cold, \
            draft0, mixed, threads1, usual-blocks.
            """)
    var only: String?

    @Flag(help: "Print JSON lines.")
    var json = false

    @OptionGroup(title: "Ranks") var parallel: ParallelOptions

    @OptionGroup(title: "Processes") var processes: ProcessOptions

    func validate() throws {
        guard (1...64).contains(maxRanks) else { throw ValidationError("--max-ranks: give a number from 1 to 64") }
        if only != nil, let kvCacheDtype {
            throw ValidationError("--kv-cache-dtype: with --only, write \(kvCacheDtype.rawValue) into the case")
        }
        if let threads = parallel.threadsPerRank {
            guard (1...64).contains(threads) else {
                throw ValidationError("--threads-per-rank: \(threads) is not between 1 and 64; try 2")
            }
            if only != nil {
                throw ValidationError("--threads-per-rank: with --only, write threads\(threads) into the case")
            }
        }
        guard cases > 0 else { throw ValidationError("--layouts: \(cases) is not positive; try 500") }
    }

    func run() async throws {
        // A verification names the exact checkpoint, so the digest covers every byte.
        let digest = try ContentDigest(model: modelPath, weights: loadFormat == .auto, .everyByte)
        let job = try Job.join(
            processes, Job.Checkpoint(path: modelPath, loadFormat: loadFormat, patience: 30, digest: digest),
            agreed: [.init("--load-format", "\(loadFormat)")])
        try await job.run({ try load().1 }, lead: { try verify(job, digest) })
    }

    private func verify(_ job: Job, _ digest: ContentDigest) throws {
        let (directory, model) = try load()
        let measure = try measure(directory.description)
        let (plan, layouts) = try plan(model, longestPrompt: measure.longestPrompt)
        let verification = Verification(model, measure, try settings(job), processes: job.processes)
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

    private func load() throws -> (ModelDirectory, any Model) {
        let directory = try ModelDirectory(modelPath)
        let progress = ProgressBar("loading \(modelPath)")
        defer { progress.finish() }
        let canDraft = !directory.description.draftLayers.isEmpty
        return (directory, try directory.load(loadFormat, drafts: canDraft) { progress.update($0) })
    }

    private func measure(_ model: ModelDescription) throws -> Workload.Measure {
        var measure = Workload.Measure(
            selecting: model.selection?.topK, contextLength: model.contextLength, vocabularySize: model.vocabularySize)
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
    private func plan(_ model: any Model, longestPrompt: Int) throws -> (VerificationPlan, layouts: Int) {
        let shape = model.parallelShape
        // With these thresholds query-gather attention is used always, or in the later half of the longest prompts.
        let minKeys = [1, max(2, longestPrompt / 2)]
        var layouts = LayoutMatrix(shape, maxRanks: maxRanks, strategies: strategies, minKeys: minKeys).layouts
        let request = parallel.request()
        if request != ParallelRequest() {
            do throws(ParallelRequest.Refusal) {
                layouts = [try request.resolve(for: shape)]
            } catch {
                throw CommandError(error.description)
            }
        }
        var conditions = ServingConditions.all(
            longestPrompt: longestPrompt, cacheTypes: kvCacheDtype.map { [$0] } ?? CacheType.allCases,
            canDraft: model.canDraft, alignment: model.positionAlignment,
            threads: parallel.threadsPerRank.map { [$0] } ?? [1, 2])
        if let only {
            do throws(NotationError) {
                let candidate = try VerificationCase(notation: only, for: shape)
                if candidate.conditions.drafts > 0 && !model.canDraft {
                    throw NotationError(
                        "'draft\(candidate.conditions.drafts)': this checkpoint has no next-token block; use draft0")
                }
                (layouts, conditions) = ([candidate.layout], [candidate.conditions])
            } catch {
                throw CommandError("--only: \(error)")
            }
        }
        return (VerificationPlan(layouts, conditions, limit: cases, seed: seed), layouts.count)
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
