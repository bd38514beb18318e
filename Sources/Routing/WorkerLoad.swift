package import JSON

/// An estimate of what a worker has to do: what this router has sent, counted before it is sent, and what the worker
/// itself reports, which includes the requests of others.
package struct WorkerLoad: Sendable, Equatable {
    /// The requests of this router that have not ended.
    package private(set) var running = 0
    /// The bytes of prompts that the worker may have to compute before it answers, of requests of this router.
    package private(set) var waitingBytes = 0
    /// The requests that this router has ever sent.
    package private(set) var sent = 0
    /// The requests of others, by the last report.
    package private(set) var others = 0
    /// The share of the worker's KV pages that requests use, 0 to 1.
    package private(set) var usage = 0.0
    /// The tokens of the worker's KV cache; 0 if it does not tell.
    package private(set) var totalTokens = 0

    package init() {}

    /// All requests that the worker has, as far as is known.
    package var requests: Int { running + others }

    package mutating func begin(unmatchedBytes: Int) {
        running += 1
        sent += 1
        waitingBytes += unmatchedBytes
    }

    /// Records the first byte of an answer: its prompt is computed.
    package mutating func answer(unmatchedBytes: Int) { waitingBytes -= unmatchedBytes }

    /// Records the end of a request.
    ///
    /// - Parameter unmatchedBytes: the bytes of a request that ended before its answer began; 0 for others.
    package mutating func end(unmatchedBytes: Int) {
        running -= 1
        waitingBytes -= unmatchedBytes
    }

    package mutating func report(_ report: LoadReport) {
        others = max(0, report.requests - running)
        (usage, totalTokens) = (report.usage, report.totalTokens)
    }

    /// Returns whether so many bytes of text fit the pages that no request uses, at about four bytes a token.
    package func hasRoom(forBytes bytes: Int) -> Bool {
        totalTokens == 0 || Double(bytes / 4) <= Double(totalTokens) * (1 - usage)
    }
}

/// What a worker tells of itself at `/v1/loads`.
package struct LoadReport: Sendable, Equatable {
    package var requests = 0
    package var usage = 0.0
    package var totalTokens = 0
    /// A number that is another one after the worker has started again; `nil` if it does not tell.
    package var startTime: Int?
    /// The name of the model; `nil` if it does not tell.
    package var modelName: String?
    /// The worker's `--disaggregation-mode`, `null` for none; `nil` if it does not tell.
    package var mode: String?

    /// A worker cannot have more of anything; larger numbers are taken for this one.
    private static let most = 1 << 40

    /// Reads a report, of which every member may be missing, or anything.
    package init(_ json: JSONValue) {
        func count(_ value: JSONValue?) -> Int { min(max(value?.wholeNumber ?? 0, 0), Self.most) }
        requests = count(json["aggregate"]?["total_reqs"])
        if let share = json["aggregate"]?["avg_token_usage"]?.double, share.isFinite { usage = min(max(share, 0), 1) }
        for load in (json["loads"]?.array ?? []).prefix(1024) {
            totalTokens = min(totalTokens + count(load["max_total_num_tokens"]), Self.most)
        }
        startTime = json["start_time"]?.integer
        modelName = json["served_model_name"]?.string.map { String($0.prefix(256)) }
        mode = json["disaggregation_mode"]?.string.map { String($0.prefix(64)) }
    }
}
