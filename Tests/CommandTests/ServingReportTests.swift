import JSON
import Testing
import braid

@Suite struct ServingReportTests {
    /// Returns the report of one request of 3 tokens at 0.1, 0.2 and 0.4 s, one of a single token, and one that failed.
    private var report: ServingReport {
        var first = ServingOutcome(inputTokens: 10)
        for (total, seconds) in [(1, 0.1), (2, 0.2), (2, 0.3), (3, 0.4)] { first.receive(total: total, at: seconds) }
        first.finish(at: 0.5)
        var second = ServingOutcome(inputTokens: 20)
        second.receive(total: 1, at: 0.3)
        second.finish(at: 0.3)
        var third = ServingOutcome(inputTokens: 40)
        third.error = "status 429"
        return ServingReport(
            backend: "braid", model: "toy", traffic: ServingTraffic(), concurrencyLimit: nil,
            outcomes: [first, second, third], duration: 2)
    }

    private func number(_ field: String) -> Double? {
        if case .number(let number) = report.json(details: false)[field] { number.double } else { nil }
    }

    @Test func `the numbers are those of the requests that succeeded`() throws {
        #expect(number("completed") == 2)
        #expect(number("failed") == 1)
        #expect(number("total_input_tokens") == 30)
        #expect(number("total_output_tokens") == 4)
        #expect(number("request_throughput") == 1)
        #expect(number("output_throughput") == 2)
        #expect(number("total_throughput") == 17)
        #expect(abs(try #require(number("concurrency")) - 0.4) < 1e-12)
        #expect(abs(try #require(number("mean_e2e_latency_ms")) - 400) < 1e-9)
        #expect(abs(try #require(number("median_ttft_ms")) - 200) < 1e-9)
        // The value is (0.5 - 0.1) / 2 tokens; the request of one token has no time per token.
        #expect(abs(try #require(number("mean_tpot_ms")) - 200) < 1e-9)
        #expect(abs(try #require(number("max_itl_ms")) - 200) < 1e-9)
        #expect(abs(try #require(number("mean_itl_ms")) - 150) < 1e-9)
    }

    @Test func `tokens that arrive together share the time since the last`() {
        var outcome = ServingOutcome(inputTokens: 1)
        outcome.receive(total: 2, at: 1)
        outcome.receive(total: 5, at: 4)
        #expect(outcome.firstToken == 1)
        #expect(outcome.gaps == [1, 1, 1])
    }

    @Test func `every line of the text has its place`() {
        let lines = report.text.split(separator: "\n")
        #expect(lines.first == "============ Serving Benchmark Result ============")
        #expect(lines.contains("Successful requests:                     2"))
        #expect(lines.contains("Failed requests:                         1"))
        #expect(lines.contains("Max request concurrency:                 not set"))
        #expect(lines.contains("Traffic request rate:                    inf"))
        #expect(lines.contains("---------------Time to First Token----------------"))
        #expect(lines.contains("Median TTFT (ms):                        200.00"))
        #expect(lines.contains("P99 ITL (ms):                            199.00"))
        #expect(lines.last == "==================================================")
    }

    @Test func `the result is one line of JSON that reads back`() throws {
        let line = report.json(details: true).pythonText
        #expect(!line.contains("\n"))
        let json = try JSONValue(parsing: line)
        #expect(json["request_rate"]?.string == "inf")
        #expect(json["max_concurrency"]?.isNull == true)
        #expect(json["output_lens"]?.array?.map(\.integer) == [3, 1, 0])
        #expect(json["errors"]?.array?.map(\.string) == ["", "", "status 429"])
    }

    @Test func `nothing measured is null in the fields and a dash in the text`() {
        var failed = ServingOutcome(inputTokens: 1)
        failed.error = "no"
        let report = ServingReport(
            backend: "vllm", model: "toy", traffic: ServingTraffic(), concurrencyLimit: 2, outcomes: [failed, failed],
            duration: 1)
        #expect(report.completed == 0)
        #expect(report.json(details: false)["median_ttft_ms"]?.isNull == true)
        #expect(report.text.contains("Median TTFT (ms):                        -"))
        #expect(report.failures.map(\.reason) == ["no"])
        #expect(report.failures.map(\.count) == [2])
    }
}
