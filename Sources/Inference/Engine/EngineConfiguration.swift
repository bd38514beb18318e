import Foundation
package import KVCache
package import Modeling
package import Parallelism
package import Tensors

/// An engine configuration holds all settings of an engine. Every setting has a usable default, and `validate` returns
/// all problems at once.
package struct EngineConfiguration: Sendable, Equatable {
    /// The way in which keys are cached. `float32` is bitwise equal to the reference; the other types save memory and round every
    /// key, or every index key, once.
    package var cacheType = CacheType.float32
    /// The number of tokens in a page is a power of two.
    package var pageSize = 64
    /// The maximum number of tokens of all requests in the KV cache; `nil` derives the limit from `cacheBytesPerRank`.
    package var maxTotalTokens: Int?
    /// Limits the cache memory in bytes per rank; `nil` takes half of the memory that each process can use, but at most what
    /// eight requests of full context need.
    package var cacheBytesPerRank: Int?
    /// Limits the cache memory in bytes per process to this and to what the maximum number of running requests with full
    /// context need; it is not used beside the two limits above.
    package var cacheBytesPerProcess: Int?
    /// The maximum number of prompt and new tokens of a request together; `nil` takes the model's context length.
    package var contextLength: Int?
    package var maxRunningRequests = 64
    package var maxQueuedRequests = 1024
    /// The maximum number of prompt tokens of one request in a step; -1 leaves only the limit of a step (32768 rows).
    package var chunkedPrefillSize = 1024
    /// The maximum number of prompt tokens of all requests in a step; `nil` takes `chunkedPrefillSize`, at least 1024.
    package var maxPrefillTokens: Int?
    /// True if later chunks of a long prompt are smaller, so that each takes about as long as the first.
    package var dynamicChunks = false
    /// True if a request reuses the pages of earlier requests with the same beginning.
    package var prefixCache = true
    /// The maximum number of alternatives that a request may ask for with each token.
    package var maxTopLogProbs = 20
    /// The number of tokens that the model's next-token block drafts for each decoding request; 0 turns speculation
    /// off.
    package var drafts = 0
    /// The parallel configuration: how ranks divide requests, rows, heads, experts and layers.
    package var parallel = ParallelConfiguration()
    /// The number of threads that share the work of each rank.
    package var threadsPerRank = 1
    /// Says whether ranks stay on the cores of one memory node each.
    package var numa = CorePolicy.auto
    package var tuning = Tuning()
    /// The number of processes among which the ranks are divided. Each has a cache of its own, with all keys or its KV
    /// shard.
    package var processes = 1
    /// The number of those processes on this host, which divide its memory between them.
    package var processesOnHost = 1
    /// The memory of this host, for all of those processes.
    package var hostMemory = HostMemory.current
    /// A rank that makes no progress for this many seconds has failed.
    package var watchdogTimeout = 300
    /// True if new ranks are started after ranks have failed.
    package var restartsOnFailure = false
    /// True if the scheduler's invariants are checked after every step, for debugging.
    package var checksInvariants = false
    /// The instruction-set level of the kernels; `nil` takes the best that the processor has.
    package var kernels: Kernels.Level?
    /// The numerics profile of all ranks. `f32` is bitwise equal to the reference.
    package var profile = NumericsProfile.f32

    package init() {}

    /// Returns the scheduler's configuration for `model`.
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
        let prefill =
            maxPrefillTokens ?? (chunkedPrefillSize == -1 ? min(context, Self.maxRows) : max(chunkedPrefillSize, 1024))
        scheduler.drafts = drafts
        scheduler.maxRowsPerStep = prefill + maxRunningRequests * (1 + drafts)
        scheduler.maxTopLogProbs = min(maxTopLogProbs, model.vocabularySize)
        scheduler.window = model.cacheFormat(cacheType, pageSize: pageSize).window
        scheduler.windowPages = windowPages(for: scheduler)
        scheduler.dividedGroups =
            hasWholeDataGroups
            ? nil : SchedulerConfiguration.DividedGroups(parallel, alignment: model.positionAlignment)
        scheduler.totalPages = totalPages(for: model, scheduler)
        return scheduler
    }

    /// True if the ranks of each data group and stage are in one process.
    private var hasWholeDataGroups: Bool {
        let (placement, size) = (
            Placement(ranks: parallel.world, processes: max(processes, 1)), parallel.context * parallel.tensor
        )
        return stride(from: 0, to: parallel.world, by: size).allSatisfy {
            placement.process(of: $0) == placement.process(of: $0 + size - 1)
        }
    }

    /// The maximum number of rows of a step: in the largest models a row needs up to a megabyte of scratch memory.
    package static let maxRows = 32_768
    private static let maxDraftTokens = 15
    /// More threads per core than this are taken for a mistake, even on a small machine.
    private static let maxThreadsPerCore = 8
    /// Cache slots are counted in 32 bits, which limits the tokens of the cache.
    static let maxTokens = Int(Int32.max) - (1 << 16)

    /// Returns all problems, each as a sentence with the nearest legal value; empty when the configuration can be used.
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
        if let problem = model.description.problem(with: cacheType) { return problems + [problem] }
        if drafts > 0 && !model.canDraft {
            problems.append(
                "--speculative-num-steps: \(drafts) tokens cannot be drafted without a next-token block; the nearest "
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

    /// The number of ranks of one process.
    var ranksHere: Int { max(parallel.world / max(processes, 1), 1) }

    /// The cores of each rank of this process.
    package var coreShares: CoreShares { numa.shares(ranks: ranksHere, threads: threadsPerRank) }

    private var maxThreadsPerRank: Int { max(1, Self.maxThreadsPerCore * cores / ranksHere) }

    /// A warning for the operator where the threads of all ranks outnumber the processor's cores, or leave most of them
    /// idle; `nil` otherwise.
    package var warning: String? {
        // A core is then left to each thread, and a second thread of a core would gain little.
        if case .bound = coreShares { return nil }
        let threads = ranksHere * threadsPerRank
        if threads > cores, threadsPerRank > 1 {
            return "--threads-per-rank: \(threads) threads will share \(cores) cores; "
                + "\(max(1, cores / ranksHere)) a rank would be faster"
        }
        if threads > cores {
            return "\(ranksHere) ranks will share \(cores) cores, and wait for each other; "
                + "as many ranks as cores would be faster"
        }
        // Other processes may use the other cores.
        guard processes <= 1, 2 * threads <= cores else { return nil }
        return "\(threads) of \(cores) cores will compute; "
            + "--threads-per-rank \(cores / ranksHere) would use the others"
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
            ("--max-prefill-tokens", maxPrefillTokens ?? 1, 1...Self.maxRows),
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
