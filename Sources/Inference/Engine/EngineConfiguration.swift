import Foundation
package import KVCache
package import Modeling
package import Parallelism
package import Tensors

/// How an engine is run. Every value has a default that works; `validate` says everything that is wrong at once.
package struct EngineConfiguration: Sendable, Equatable {
    /// How the cache keeps keys. Float32 keeps the reference's bits; the others save memory and round keys once.
    package var cacheType = CacheType.float32
    /// Tokens of a page, a power of two.
    package var pageSize = 64
    /// Tokens of the KV cache, all requests together; `nil` for what `cacheBytesPerRank` holds.
    package var maxTotalTokens: Int?
    /// Memory for keys, so many bytes for each rank; `nil` for half of the machine's memory in each process, but at most
    /// what eight times the context length needs.
    package var cacheBytesPerRank: Int?
    /// Prompt and new tokens of a request, at most; `nil` for what the model was made for.
    package var contextLength: Int?
    package var maxRunningRequests = 64
    package var maxQueuedRequests = 1024
    /// Prompt tokens of one request computed in one step; -1 for as many as a step can have (32768).
    package var chunkedPrefillSize = 1024
    /// Whether later chunks of a long prompt are smaller, so that each takes about as long as the first.
    package var dynamicChunks = false
    /// Whether a request uses pages that earlier ones with the same beginning have left behind.
    package var prefixCache = true
    /// Tokens that the model's next-token block guesses behind each request; 0 guesses none.
    package var drafts = 0
    /// How the ranks share the work.
    package var parallel = ParallelConfiguration()
    /// Threads that share the work inside each rank.
    package var threadsPerRank = 1
    package var tuning = Tuning()
    /// Among which the ranks are divided; each has a cache of its own, with all keys or its share of them.
    package var processes = 1
    /// A rank that makes no progress for so many seconds has failed.
    package var watchdogTimeout = 300
    /// Whether new ranks are started when ranks have failed.
    package var restartsOnFailure = false
    /// Whether the scheduler's books are checked after every step: a debug mode.
    package var checksInvariants = false
    /// Instruction-set level; `nil` for the best.
    package var kernels: Kernels.Level?

    package init() {}

    /// What the scheduler is told.
    package func scheduler(for model: any Model) -> SchedulerConfiguration {
        let context = contextLength ?? model.contextLength
        var scheduler = SchedulerConfiguration(
            totalPages: 1, contextLength: context, vocabularySize: model.vocabularySize)
        scheduler.pageSize = pageSize
        scheduler.maxRunningRequests = maxRunningRequests
        scheduler.maxQueuedRequests = maxQueuedRequests
        scheduler.dynamicChunks = dynamicChunks
        scheduler.prefixCache = prefixCache
        scheduler.maxStepsInFlight = parallel.pipeline
        scheduler.dataGroups = parallel.data
        scheduler.groupsShareKeys = processes == 1
        scheduler.chunkedPrefillSize = chunkedPrefillSize
        let prefill = chunkedPrefillSize == -1 ? min(context, Self.maxRows) : max(chunkedPrefillSize, 1024)
        scheduler.drafts = drafts
        scheduler.maxRowsPerStep = prefill + maxRunningRequests * (1 + drafts)
        scheduler.maxTopLogProbs = min(scheduler.maxTopLogProbs, model.vocabularySize)
        scheduler.window = model.cacheFormat(cacheType, pageSize: pageSize).window
        scheduler.windowPages = windowPages(for: scheduler)
        scheduler.totalPages = totalPages(for: model, scheduler)
        return scheduler
    }

    /// Rows of a step, at most: what a row needs of scratch memory is up to a megabyte in the largest models.
    static let maxRows = 32_768
    private static let maxDraftTokens = 15
    /// More is a mistake, however small the machine.
    private static let maxThreadsPerCore = 8
    /// Slots of the cache are counted in 32 bits.
    static let maxTokens = Int(Int32.max) - (1 << 16)

    /// All problems, each a sentence with the nearest legal value; empty when the configuration can be used.
    package func validate(for model: any Model) -> [String] {
        var problems = rangeProblems(for: model)
        if pageSize > 0, pageSize & (pageSize - 1) != 0 {
            problems.append("--page-size: \(pageSize) is not a power of two; try 64")
        }
        let alignment = model.positionAlignment
        if problems.isEmpty, pageSize % alignment != 0 {
            problems.append(
                "--page-size: \(pageSize) tokens are no multiple of \(alignment), the tokens of this model's longest "
                    + "cache entry; the nearest legal value is \(alignment)")
        }
        if drafts > 0 && !model.canDraft {
            problems.append(
                "--speculative-num-steps: \(drafts) tokens cannot be guessed without a next-token block; the nearest "
                    + "legal value is 0")
        }
        if !(1...maxThreadsPerRank).contains(threadsPerRank) {
            problems.append(
                "--threads-per-rank: \(threadsPerRank) is not between 1 and \(maxThreadsPerRank), with which a process "
                    + "has \(Self.maxThreadsPerCore) threads a core; the nearest legal value is "
                    + "\(max(1, min(threadsPerRank, maxThreadsPerRank)))")
        }
        if let kernels, Kernels(kernels) == nil {
            let levels = Kernels.available.map(\.level.rawValue).joined(separator: ", ")
            problems.append("this processor has no \(kernels.rawValue) kernels; legal: \(levels)")
        }
        if problems.isEmpty { problems += memoryProblems(for: model) }
        return problems.isEmpty ? scheduler(for: model).validate().map(\.description) : problems
    }

    /// The ranks of one process.
    var ranksHere: Int { max(parallel.world / max(processes, 1), 1) }

    private var maxThreadsPerRank: Int { max(1, Self.maxThreadsPerCore * cores / ranksHere) }

    /// What to tell who asked for more threads than can run at once; `nil` where all can.
    package var warning: String? {
        guard threadsPerRank > 1, ranksHere * threadsPerRank > cores else { return nil }
        return "--threads-per-rank: \(ranksHere * threadsPerRank) threads will take turns on \(cores) cores; "
            + "\(max(1, cores / ranksHere)) a rank would be faster"
    }

    private var cores: Int { ProcessInfo.processInfo.activeProcessorCount }

    private func rangeProblems(for model: any Model) -> [String] {
        let chunk = chunkedPrefillSize == -1 ? 1 : chunkedPrefillSize
        let ranges: [(String, Int, ClosedRange<Int>)] = [
            ("--page-size", pageSize, 1...CacheFormat.maxPageSize),
            ("--max-total-tokens", maxTotalTokens ?? 1, 1...Self.maxTokens),
            ("--kv-cache-memory-bytes", cacheBytesPerRank ?? 1, 1...(1 << 60)),
            ("--context-length", contextLength ?? 1, 1...model.contextLength),
            ("--max-running-requests", maxRunningRequests, 1...65_536),
            ("--max-queued-requests", maxQueuedRequests, 1...16_777_216),
            ("--chunked-prefill-size", chunk, 1...Self.maxRows),
            ("--speculative-num-steps", drafts, 0...Self.maxDraftTokens),
            ("--watchdog-timeout", watchdogTimeout, 1...1_000_000),
        ]
        return ranges.filter { !$2.contains($1) }.map { name, value, legal in
            let nearest = min(max(value, legal.lowerBound), legal.upperBound)
            return "\(name): \(value) is not between \(legal.lowerBound) and \(legal.upperBound); "
                + "the nearest legal value is \(nearest)"
        }
    }
}
