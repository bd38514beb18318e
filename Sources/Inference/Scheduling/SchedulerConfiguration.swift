import KVCache
package import Parallelism

/// A scheduler configuration holds the bounds a scheduler works within; they are the same for every request.
package struct SchedulerConfiguration: Sendable, Equatable {
    /// The number of pages in the KV cache.
    package var totalPages: Int
    /// The number of tokens in a page is a power of two.
    package var pageSize = 64
    /// The number of tokens that a row sees of the key sets that have a window, its own included; 0 for a model without
    /// windows.
    package var window = 0
    /// The number of window pages in the cache; see `minWindowPages`.
    package var windowPages = 0
    /// The division of a data group's rows where its ranks are in several processes, of which each has only some of
    /// the window entries (`WindowOwners`); `nil` where every rank can read all of them.
    package var dividedGroups: DividedGroups?
    /// The maximum number of prompt and new tokens of one request together.
    package var contextLength: Int
    package var vocabularySize: Int
    /// The maximum number of requests that hold pages at the same time.
    package var maxRunningRequests = 64
    /// The maximum number of requests in the queue; more are refused.
    package var maxQueuedRequests = 1024
    /// The maximum number of prompt tokens of one request in a step; `nil` or -1 leaves only `maxRowsPerStep`.
    package var chunkedPrefillSize: Int? = 4096
    /// True if later chunks of a prompt are smaller, so that each takes about as long as the first.
    package var dynamicChunks = false
    /// The maximum number of rows of one step. Decoding requests get their rows first, then prompts.
    package var maxRowsPerStep = 8192
    /// The maximum number of steps in flight: one for each pipeline stage.
    package var maxStepsInFlight = 1
    /// The number of data groups, the groups of ranks among which requests are divided.
    package var dataGroups = 1
    /// True if ranks of one data group can read the keys that ranks of another have stored. They cannot if the
    /// groups may live in different processes; a request then reuses pages of its own group only.
    package var groupsShareKeys = true
    /// True if a request reuses the pages of earlier requests with the same beginning.
    package var prefixCache = true
    /// The number of tokens drafted for each decoding request, and verified in the next step; 0 turns speculation off.
    package var drafts = 0
    /// The maximum number of alternatives that a request may ask for with each token.
    package var maxTopLogProbs = 20

    package init(totalPages: Int, contextLength: Int, vocabularySize: Int) {
        self.totalPages = totalPages
        self.contextLength = contextLength
        self.vocabularySize = vocabularySize
    }

    /// The division of a data group's rows among ranks that are in several processes.
    package struct DividedGroups: Sendable, Equatable {
        package var parallel: ParallelConfiguration
        /// The number of consecutive positions that stay together on one rank; see `Model.positionAlignment`.
        package var alignment: Int

        package init(_ parallel: ParallelConfiguration, alignment: Int) {
            (self.parallel, self.alignment) = (parallel, alignment)
        }
    }

    /// A problem is a setting that cannot be used, with the nearest legal value.
    package struct Problem: Sendable, Equatable, CustomStringConvertible {
        package var parameter: String
        package var message: String
        package var nearestLegal: Int

        package var description: String { "\(parameter): \(message); the nearest legal value is \(nearestLegal)" }
    }

    /// The bounds that a request is checked against.
    package var limits: EngineLimits {
        EngineLimits(
            contextLength: contextLength, vocabularySize: vocabularySize, maxRunningRequests: maxRunningRequests,
            maxQueuedRequests: maxQueuedRequests,
            maxTopLogProbs: maxTopLogProbs)
    }

    /// Returns all problems; empty when the configuration can be used.
    package func validate() -> [Problem] {
        let number = Int(Int32.max)
        var problems = [
            problem("total_pages", totalPages, 1...number),
            problem("context_length", contextLength, 1...number),
            problem("vocabulary_size", vocabularySize, 1...number),
            problem("max_running_requests", maxRunningRequests, 1...number),
            problem("max_queued_requests", maxQueuedRequests, 1...number),
            problem("max_steps_in_flight", maxStepsInFlight, 1...number),
            problem("window", window, 0...number),
            problem("window_pages", windowPages, min(minWindowPages, number)...number),
            problem("data_groups", dataGroups, 1...number),
            problem("drafts", drafts, 0...number),
            problem("max_top_logprobs", maxTopLogProbs, 0...max(0, min(vocabularySize, number))),
        ].compactMap { $0 }
        if let problem = pageSizeProblem { problems.append(problem) }
        if let size = chunkedPrefillSize, size < 1, size != -1 {
            problems.append(
                Problem(
                    parameter: "chunked_prefill_size", message: "\(size) is neither positive nor -1 (no limit)",
                    nearestLegal: size == 0 ? 1 : -1))
        }
        // With fewer rows than this per step, some running requests could starve.
        let running = min(max(1, maxRunningRequests), number)
        let (product, overflow) = running.multipliedReportingOverflow(by: 1 + min(max(0, drafts), number))
        let least = overflow ? number : min(product, number)
        if !(least...number).contains(maxRowsPerStep) {
            problems.append(
                Problem(
                    parameter: "max_rows_per_step",
                    message:
                        "\(maxRowsPerStep) is not between max_running_requests × (1 + drafts), \(least), and \(number)",
                    nearestLegal: min(max(maxRowsPerStep, least), number)))
        }
        return problems
    }

    /// The least number of window pages. Every running request can then have those of its last page border's window, of
    /// one row, and of its drafts, so that the first in order makes progress whatever the others hold.
    package var minWindowPages: Int {
        guard window > 0, pageSize > 0 else { return 0 }
        // Values beyond these are refused elsewhere.
        func bounded(_ value: Int) -> Int { min(max(value, 0), 1 << 24) }
        return CacheFormat.minWindowPages(
            of: bounded(window), requests: max(bounded(maxRunningRequests), 1), drafts: bounded(drafts),
            pageSize: pageSize)
    }

    /// The maximum number of prompt tokens of one request that a step computes.
    var prefillChunk: Int {
        guard let size = chunkedPrefillSize, size != -1 else { return maxRowsPerStep }
        return min(size, maxRowsPerStep)
    }

    private func problem(_ parameter: String, _ value: Int, _ legal: ClosedRange<Int>) -> Problem? {
        guard !legal.contains(value) else { return nil }
        return Problem(
            parameter: parameter, message: "\(value) is not between \(legal.lowerBound) and \(legal.upperBound)",
            nearestLegal: min(max(value, legal.lowerBound), legal.upperBound))
    }

    private var pageSizeProblem: Problem? {
        let largest = 1 << 16
        guard pageSize < 1 || pageSize > largest || pageSize & (pageSize - 1) != 0 else { return nil }
        let clamped = min(max(pageSize, 1), largest)
        let below = 1 << (Int.bitWidth - 1 - clamped.leadingZeroBitCount)
        let above = min(below * 2, largest)
        return Problem(
            parameter: "page_size", message: "\(pageSize) is not a power of two between 1 and \(largest)",
            nearestLegal: clamped - below < above - clamped || below == clamped ? below : above)
    }
}
