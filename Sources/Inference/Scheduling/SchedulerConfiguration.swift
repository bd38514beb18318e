/// The bounds a scheduler works within; the same for every request.
package struct SchedulerConfiguration: Sendable, Equatable {
    /// Pages of the KV cache, all requests together.
    package var totalPages: Int
    /// Tokens in a page; a power of two.
    package var pageSize = 64
    /// Tokens that a row sees of the key sets that have a window, its own among them; 0 where the model has none.
    package var window = 0
    /// Pages of those key sets; see `minWindowPages`.
    package var windowPages = 0
    /// Prompt and new tokens of one request together, at most.
    package var contextLength: Int
    package var vocabularySize: Int
    /// Requests that hold pages at the same time, at most.
    package var maxRunningRequests = 64
    /// Requests that wait for their turn, at most; more are refused.
    package var maxQueuedRequests = 1024
    /// Prompt tokens of one request computed in one step, at most; `nil` or -1 leaves only `maxRowsPerStep`.
    package var chunkedPrefillSize: Int? = 4096
    /// Whether later chunks of a prompt are smaller, so that each takes about as long as the first.
    package var dynamicChunks = false
    /// Rows of one step: first one for each decoding request, then prompt tokens of one or more requests.
    package var maxRowsPerStep = 8192
    /// Steps that may be on their way through the ranks at once: one for each pipeline stage.
    package var maxStepsInFlight = 1
    /// Groups of ranks among which requests are divided.
    package var dataGroups = 1
    /// Whether ranks of one data group can read what those of another have stored: not where they may live in different
    /// processes. A request then uses pages of its own group only.
    package var groupsShareKeys = true
    /// Whether a request uses pages that earlier ones with the same beginning have left behind.
    package var prefixCache = true
    /// Tokens guessed behind each decoding request, to be computed together with the next one; 0 guesses none.
    package var drafts = 0
    /// Alternatives a request may ask for beside each token, at most.
    package var maxTopLogProbs = 20

    package init(totalPages: Int, contextLength: Int, vocabularySize: Int) {
        self.totalPages = totalPages
        self.contextLength = contextLength
        self.vocabularySize = vocabularySize
    }

    /// A value that cannot be used, and the closest one that can.
    package struct Problem: Sendable, Equatable, CustomStringConvertible {
        package var parameter: String
        package var message: String
        package var nearestLegal: Int

        package var description: String { "\(parameter): \(message); the nearest legal value is \(nearestLegal)" }
    }

    /// The bounds of a request, as callers see them.
    package var limits: EngineLimits {
        EngineLimits(
            contextLength: contextLength, vocabularySize: vocabularySize, maxQueuedRequests: maxQueuedRequests,
            maxTopLogProbs: maxTopLogProbs)
    }

    /// Everything that is wrong, not only the first thing; empty when the configuration can be used.
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
            problem("guesses", drafts, 0...number),
            problem("max_top_logprobs", maxTopLogProbs, 0...max(0, min(vocabularySize, number))),
        ].compactMap { $0 }
        if let problem = pageSizeProblem { problems.append(problem) }
        if let size = chunkedPrefillSize, size < 1, size != -1 {
            problems.append(
                Problem(
                    parameter: "chunked_prefill_size", message: "\(size) is neither positive nor -1 (no limit)",
                    nearestLegal: size == 0 ? 1 : -1))
        }
        // A step that could not hold the rows of every running request would let some of them starve.
        let running = min(max(1, maxRunningRequests), number)
        let (product, overflow) = running.multipliedReportingOverflow(by: 1 + min(max(0, drafts), number))
        let least = overflow ? number : min(product, number)
        if !(least...number).contains(maxRowsPerStep) {
            problems.append(
                Problem(
                    parameter: "max_rows_per_step",
                    message:
                        "\(maxRowsPerStep) is not between max_running_requests × (1 + guesses), \(least), and \(number)",
                    nearestLegal: min(max(maxRowsPerStep, least), number)))
        }
        return problems
    }

    /// So many window pages that every running request can have those of its window, of a row, and of the tokens that are
    /// drafted: whatever the others hold, the first in order then goes on.
    package var minWindowPages: Int {
        guard window > 0, pageSize > 0 else { return 0 }
        let tokens = window + 2 * max(drafts, 0)
        return max(maxRunningRequests, 1) * ((tokens + pageSize - 1) / pageSize + 1)
    }

    /// Prompt tokens of one request computed in one step, at most.
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
