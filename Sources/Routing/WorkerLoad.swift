import Foundation
package import JSON
import Serving

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
    static let path = "/v1/loads"

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

    private static func count(_ value: JSONValue?) -> Int { min(max(value?.wholeNumber ?? 0, 0), most) }

    /// Reads a report, of which every member may be missing, or anything.
    package init(_ json: JSONValue) {
        let count = Self.count
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

// MARK: - The loads of several workers

extension LoadReport {
    /// Returns the report of a server whose ranks are those of several workers.
    static func joined(_ reports: [JSONValue]) -> JSONValue {
        let loads = reports.flatMap { $0["loads"]?.array ?? [] }
        func total(_ name: String) -> JSONValue {
            .integer(reports.reduce(0) { min($0 + count($1["aggregate"]?[name]), most) })
        }
        let usage = reports.reduce(0) { $0 + LoadReport($1).usage } / Double(max(reports.count, 1))
        return .fields([
            "timestamp": .string(Date().formatted(.iso8601)), "version": .string(ServerConfiguration.version),
            "served_model_name": reports.first?["served_model_name"] ?? .null,
            "dp_rank_count": .integer(loads.count), "loads": .array(numbered(loads)),
            "aggregate": .fields([
                "total_running_reqs": total("total_running_reqs"), "total_waiting_reqs": total("total_waiting_reqs"),
                "total_reqs": total("total_reqs"), "avg_token_usage": .number(usage),
            ]),
        ])
    }

    /// Returns the loads of ranks with the numbers of the ranks in order, since each worker counts its own from 0.
    static func numbered(_ loads: [JSONValue]) -> [JSONValue] {
        loads.compactMap(\.object).enumerated().map { rank, members in
            .object([JSONMember("dp_rank", .integer(rank))] + members.filter { $0.key != "dp_rank" })
        }
    }
}
