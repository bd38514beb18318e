import TestSupport
import Testing
import braid

/// The reader of `/metrics`, whose pages come from addresses that somebody typed.
@Suite struct `A page of metrics` {
    private func page(_ text: String) throws -> MetricsText { try MetricsText(Array(text.utf8)) }

    @Test func `has the amount of a series, whatever its labels are`() throws {
        let page = try page(
            """
            # HELP braid_steps_total Steps, "all" of {them.
            # TYPE braid_steps_total counter
            braid_steps_total{model_name="a \\"b\\" \\\\ \\n c, d} 1"} 7

            \t braid_up 1e0 1700000000000
            with:colon {} 0.5
            labels{ a="1" , b = "2", } 2
            """)
        #expect(try page.amount("braid_steps_total") == 7)
        #expect(try page.amount("braid_up") == 1 && page.amount("with:colon") == 0.5)
        #expect(try page.amount("labels") == 2)
        #expect(try page.amount("braid_other") == nil)
    }

    @Test func `may be empty, or end without a line break`() throws {
        #expect(try page("").amount("a") == nil)
        #expect(try page("\n\n#\n").amount("a") == nil)
        #expect(try page("a 1").amount("a") == 1)
    }

    @Test func `keeps the buckets of a histogram apart from its sum`() throws {
        let page = try page("t_bucket{le=\"0.1\"} 1\nt_bucket{le=\"+Inf\"} 3\nt_sum 0.75\nt_count 3\n")
        #expect(try page.amount("t_sum") == 0.75 && page.amount("t_count") == 3)
        #expect(throws: MetricsText.Problem.self) { try page.amount("t_bucket") }
    }

    @Test(arguments: ["NaN", "+Inf", "-Inf", "-1"]) func `has no amount that is none`(value: String) throws {
        let page = try page("a \(value)")
        let problem = #expect(throws: MetricsText.Problem.self) { try page.amount("a") }
        #expect(problem?.description.contains("which is no amount") == true)
    }

    @Test(arguments: [
        ("a", "no value"), ("a ", "no value"), ("1a 1", "no name"), ("{} 1", "no name"), ("é 1", "no name"),
        ("a one", "number"), ("a 0x10", "number"), ("a infinity", "number"), ("a nan", "number"), ("a 1 2.5", "number"),
        ("a 1 2 3", "end behind"), ("a{b} 1", "without a value"), ("a{b=c} 1", "quotation marks"),
        ("a{b=\"c} 1", "not end"), ("a{b=\"c\" 1", "not end"), ("a{b=\"c\"", "not end"), ("a{", "no name"),
        ("a{,} 1", "no name"), ("a{b=\"c\"d=\"e\"} 1", "not end"), ("a{b=\"\\t\"} 1", "backslash"),
        ("a{b=\"\\", "backslash"), ("a{b=\"c\",b=\"c\"} 1", "repeats a label"),
        ("a{b=\"1\",c=\"2\"} 1\na{c=\"2\",b=\"1\"} 1", "repeats a series"), ("<html>", "no name"),
        ("a\u{0}1", "number"),
    ])
    func `is refused where a line is none of the format`(text: String, words: String) throws {
        let problem = #expect(throws: MetricsText.Problem.self) { try page("ok 1\n" + text) }
        #expect(problem?.description.contains(words) == true, "\(String(describing: problem))")
        #expect(problem?.description.contains(text.contains("\n") ? "line 3" : "line 2") == true)
    }

    @Test func `is refused where a label is no UTF-8`() throws {
        #expect(throws: MetricsText.Problem.self) {
            try MetricsText(Array("a{b=\"".utf8) + [0xFF] + Array("\"} 1".utf8))
        }
    }

    @Test func `is bounded in bytes, lines, samples and labels`() throws {
        #expect(throws: MetricsText.Problem.self) {
            try MetricsText(Array(repeating: UInt8(ascii: "\n"), count: MetricsText.maxBytes + 1))
        }
        #expect(throws: MetricsText.Problem.self) {
            try page("#" + String(repeating: "x", count: MetricsText.maxLineBytes))
        }
        let labels = (0...MetricsText.maxLabels).map { "l\($0)=\"\"" }
        #expect(throws: MetricsText.Problem.self) { try page("a{\(labels.joined(separator: ","))} 1") }
        #expect(try page("a{\(labels.dropLast().joined(separator: ","))} 1").amount("a") == 1)
        let lines = (0...MetricsText.maxSamples).map { "a{b=\"\($0)\"} 1" }
        #expect(throws: MetricsText.Problem.self) { try page(lines.joined(separator: "\n")) }
    }

    @Test func `never ends the program, whatever bytes are changed`() throws {
        var random = SplitMix64.printed()
        let bytes = Array("# a\nbraid_a{m=\"x\\n\",n=\"\"} 1.5e-3 12\nbraid_b 2\n".utf8)
        for _ in 0..<20_000 {
            var damaged = bytes
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let place = damaged.indices.randomElement(using: &random)!
                damaged[place] = UInt8.random(in: 0...255, using: &random)
            }
            _ = try? MetricsText(Array(damaged.prefix(Int.random(in: 0...damaged.count, using: &random))))
        }
    }
}
