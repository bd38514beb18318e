import Foundation
package import JSON

/// A serving report holds the results of a serving benchmark, in the words and field names of SGLang's `bench_serving`,
/// so that tools for those results can read these. Values are `null` (and `-` in the text) where nothing was measured,
/// not 0.
package struct ServingReport: Sendable {
    private let backend: String
    private let model: String
    private let dataset: String
    private let traffic: ServingTraffic
    private let concurrencyLimit: Int?
    private let outcomes: [ServingOutcome]
    private let duration: Double
    /// The seconds that answers to `/health` took meanwhile.
    package var health = Measurements([])

    package init(
        backend: String, model: String, dataset: String = "random", traffic: ServingTraffic, concurrencyLimit: Int?,
        outcomes: [ServingOutcome], duration: Double
    ) {
        self.backend = backend
        self.model = model
        self.dataset = dataset
        self.traffic = traffic
        self.concurrencyLimit = concurrencyLimit
        self.outcomes = outcomes
        self.duration = duration
    }

    private var successes: [ServingOutcome] { outcomes.filter { $0.error == nil } }
    package var completed: Int { successes.count }
    private var inputTokens: Int { successes.map(\.inputTokens).reduce(0, +) }
    private var outputTokens: Int { successes.map(\.outputTokens).reduce(0, +) }
    /// The average number of requests that ran at the same time.
    private var concurrency: Double { successes.map(\.latency).reduce(0, +) / duration }

    /// The values of one kind of latency, in milliseconds.
    private struct Latency {
        let title: String
        /// The name in the text.
        let name: String
        let field: String
        let values: Measurements
    }

    private var latencies: [Latency] {
        func latency(_ title: String, _ name: String, _ field: String, _ seconds: [Double]) -> Latency {
            Latency(title: title, name: name, field: field, values: Measurements(seconds).scaled(by: 1000))
        }
        let latencies = [
            latency("End-to-End Latency", "E2E Latency", "e2e_latency", successes.map(\.latency)),
            latency("Time to First Token", "TTFT", "ttft", successes.compactMap(\.firstToken)),
            latency("Time per Output Token (excl. 1st token)", "TPOT", "tpot", successes.compactMap(\.timePerToken)),
            latency("Inter-Token Latency", "ITL", "itl", successes.flatMap(\.gaps)),
        ]
        guard health.count > 0 else { return latencies }
        return latencies + [
            Latency(title: "GET /health", name: "Health", field: "health", values: health.scaled(by: 1000))
        ]
    }

    /// The reasons of failures with their counts, most frequent first.
    package var failures: [(reason: String, count: Int)] {
        failureCounts(outcomes.compactMap(\.error))
    }

    /// The report as a block of text.
    package var text: String {
        var lines = [Self.banner(" Serving Benchmark Result ", "=")]
        func add(_ label: String, _ value: String) {
            lines.append((label + ":").padding(toLength: 40, withPad: " ", startingAt: 0) + " " + value)
        }
        func add(_ label: String, _ value: Double?) { add(label, value.map { String(format: "%.2f", $0) } ?? "-") }
        add("Backend", backend)
        add("Traffic request rate", traffic.rate.isFinite ? "\(traffic.rate)" : "inf")
        add("Max request concurrency", concurrencyLimit.map(String.init) ?? "not set")
        add("Successful requests", String(completed))
        if completed < outcomes.count { add("Failed requests", String(outcomes.count - completed)) }
        add("Benchmark duration (s)", duration)
        add("Total input tokens", String(inputTokens))
        add("Total generated tokens", String(outputTokens))
        add("Request throughput (req/s)", Double(completed) / duration)
        add("Input token throughput (tok/s)", Double(inputTokens) / duration)
        add("Output token throughput (tok/s)", Double(outputTokens) / duration)
        add("Total token throughput (tok/s)", Double(inputTokens + outputTokens) / duration)
        add("Concurrency", concurrency)
        for latency in latencies {
            lines.append(Self.banner(latency.title, "-"))
            add("Mean \(latency.name) (ms)", latency.values.mean)
            add("Median \(latency.name) (ms)", latency.values.median)
            add("P90 \(latency.name) (ms)", latency.values.percentile(90))
            add("P99 \(latency.name) (ms)", latency.values.percentile(99))
        }
        return (lines + [String(repeating: "=", count: 50)]).joined(separator: "\n")
    }

    /// Returns `text` in the middle of a line of 50 characters.
    private static func banner(_ text: String, _ fill: Character) -> String {
        let room = max(50 - text.count, 0)
        return String(repeating: fill, count: room / 2) + text + String(repeating: fill, count: room - room / 2)
    }

    /// Returns one line for a file of results.
    ///
    /// - Parameter details: True to list every request.
    package func json(details: Bool) -> JSONValue {
        var members = settings + results
        for latency in latencies { members += Self.fields(latency) }
        members.append(JSONMember("concurrency", .measured(concurrency)))
        return .object(details ? members + listing : members)
    }

    private var settings: [JSONMember] {
        [
            JSONMember("backend", .string(backend)), JSONMember("model", .string(model)),
            JSONMember("dataset_name", .string(dataset)),
            JSONMember("request_rate", traffic.rate.isFinite ? .measured(traffic.rate) : .string("inf")),
            JSONMember("max_concurrency", concurrencyLimit.map(JSONValue.integer) ?? .null),
            JSONMember("num_prompts", .integer(traffic.requests)),
            JSONMember("random_input_len", .integer(traffic.inputLength)),
            JSONMember("random_output_len", .integer(traffic.outputLength)),
            JSONMember("random_range_ratio", .measured(traffic.rangeRatio)),
            JSONMember("seed", .integer(Int(traffic.seed))),
        ]
    }

    private var results: [JSONMember] {
        [
            JSONMember("duration", .measured(duration)), JSONMember("completed", .integer(completed)),
            JSONMember("failed", .integer(outcomes.count - completed)),
            JSONMember("total_input_tokens", .integer(inputTokens)),
            JSONMember("total_output_tokens", .integer(outputTokens)),
            JSONMember("request_throughput", .measured(Double(completed) / duration)),
            JSONMember("input_throughput", .measured(Double(inputTokens) / duration)),
            JSONMember("output_throughput", .measured(Double(outputTokens) / duration)),
            JSONMember("total_throughput", .measured(Double(inputTokens + outputTokens) / duration)),
        ]
    }

    private static func fields(_ latency: Latency) -> [JSONMember] {
        let (name, values) = (latency.field, latency.values)
        return [
            JSONMember("mean_\(name)_ms", .measured(values.mean)),
            JSONMember("median_\(name)_ms", .measured(values.median)),
            JSONMember("std_\(name)_ms", .measured(values.standardDeviation)),
            JSONMember("p90_\(name)_ms", .measured(values.percentile(90))),
            JSONMember("p95_\(name)_ms", .measured(values.percentile(95))),
            JSONMember("p99_\(name)_ms", .measured(values.percentile(99))),
            JSONMember("max_\(name)_ms", .measured(values.maximum)),
        ]
    }

    /// Every request in the order of sending, with times in seconds.
    private var listing: [JSONMember] {
        func list(_ key: String, _ value: (ServingOutcome) -> JSONValue) -> JSONMember {
            JSONMember(key, .array(outcomes.map(value)))
        }
        return [
            list("input_lens") { .integer($0.inputTokens) },
            list("output_lens") { .integer($0.error == nil ? $0.outputTokens : 0) },
            list("ttfts") { .measured($0.firstToken) },
            list("itls") { .array($0.gaps.map(JSONValue.measured)) },
            list("errors") { .string($0.error ?? "") },
        ]
    }
}
