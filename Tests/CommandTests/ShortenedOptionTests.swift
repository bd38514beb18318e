import ArgumentParser
import Testing
import braid

@Suite struct `The beginning of an option's name` {
    private static func line(_ text: String, environment: [String: String] = [:]) throws -> LaunchLine {
        try LaunchLine(text.split(separator: " ").map(String.init), environment: environment)
    }

    private static func refusal(_ text: String, environment: [String: String] = [:]) throws -> [String] {
        let error = try #require(throws: (any Error).self) { try line(text, environment: environment) }
        return "\(error)".split(separator: "\n").map(String.init)
    }

    @Test(arguments: [
        ("serve m --speculative-algo NEXTN", ["--speculative-algorithm", "NEXTN"]),
        ("serve m --speculative_algo=NEXTN", ["--speculative-algorithm", "NEXTN"]),
        ("serve m --tensor-parallel 4", ["--tensor-parallel-size", "4"]),
        ("serve m --mem-frac 0.7", ["--mem-fraction-static", "0.7"]),
        ("serve m --preloa", ["--preload"]),
        ("router --worker-u http://h:1", ["--worker-urls", "http://h:1"]),
        ("bench serving --num-promp 4", ["--num-prompts", "4"]),
        ("eval gsm8k --num-quest 4", ["--num-questions", "4"]),
        ("generate m --max-new 4", ["--max-new-tokens", "4"]),
        // Options of other engines.
        ("serve m --block-s 32", ["--page-size", "32"]),
        ("serve m --max-num-sch 512", ["--max-prefill-tokens", "512"]),
        ("serve m --no-enable-prefix-c", ["--disable-radix-cache"]),
    ])
    func `stands for the option`(text: String, expected: [String]) throws {
        let line = try Self.line(text)
        #expect(line.arguments.suffix(expected.count) == expected, "\(line.arguments)")
        #expect(line.startLines.isEmpty)
    }

    @Test func `of one without effect is named in full`() throws {
        #expect(try Self.line("serve m --attention-b nsa").startLines == ["has no effect here: --attention-backend"])
        #expect(try Self.line("serve m --no-enable-eplb").startLines == ["has no effect here: --no-enable-eplb"])
        #expect(try Self.line("serve m --no-async-sch").startLines == ["has no effect here: --no-async-scheduling"])
    }

    @Test func `is refused where several options have it, with their names`() throws {
        let lines = try Self.refusal("serve m --page-sise 4 --max-run 1 --speculative-num 3 --decode 4 --frobnicate 7")
        let unknown = "unknown options --page-sise (nearest: --page-size), --frobnicate"
        let several =
            "--speculative-num is the beginning of several options: --speculative-num-steps, "
            + "--speculative-num-draft-tokens; write the name in full"
        #expect(lines.count == 3 && lines.contains(unknown) && lines.contains(several), "\(lines)")
        #expect(lines.contains { $0.hasPrefix("--decode is the beginning of several options: --decode-") }, "\(lines)")
        // A long list is cut.
        let long = try Self.refusal("serve m --enable")
        #expect(long.count == 1 && long[0].contains(" more; write the name in full"), "\(long)")
        #expect(long[0].split(separator: ",").count == 12)
    }

    @Test func `that is a whole name is that option`() throws {
        for (name, value) in [("--tp", "4"), ("--model", "m"), ("--dcp", "2"), ("--disaggregation-mode", "null")] {
            let line = try Self.line("serve \(name) \(value)")
            #expect(line.settings.last?.words == [name, value])
        }
    }

    @Test func `is that option where all that have it are names of one`() throws {
        #expect(try Self.line("serve m --nccl-in h:1").settings.last?.words == ["--nccl-init-addr", "h:1"])
        #expect(try Self.line("chat m --tokeniz d").settings.last?.words == ["--tokenizer-path", "d"])
        #expect(try Self.line("chat m --tensor-para 2").settings.last?.words == ["--tensor-parallel-size", "2"])
    }

    @Test func `is no name in a file or a variable`() throws {
        let warning = "environment BRAID_SPECULATIVE_ALGO: there is no such option"
        let line = try Self.line("serve m", environment: ["BRAID_SPECULATIVE_ALGO": "NEXTN"])
        #expect(line.startLines.count == 1 && line.startLines[0].hasPrefix(warning), "\(line.startLines)")
        try TemporaryFile.with("speculative-algo: NEXTN") { path in
            let lines = try Self.refusal("serve m --config \(path)")
            let expected = "\(path):1: unknown option --speculative-algo (nearest: --speculative-algorithm)"
            #expect(lines == [expected], "\(lines)")
        }
    }

    @Test func `is written in full in the line that starts processes, so that no key is in it`() throws {
        let line = try Self.line("serve m --api-k s3cret -n 2 --node-r 1 --block-si 32 -- --api-k x")
        #expect(
            line.given.joined(separator: " ")
                == "serve m --api-key s3cret --nnodes 2 --node-rank 1 --page-size 32 -- --api-k x")
        let options = try ProcessOptions.parse(["--nnodes", "2", "--node-rank", "1"])
        let printed = try #require(try options.mpirunLine(line.given, program: "braid", isRoot: false))
        #expect(!printed.contains("s3cret") && !printed.contains("--nnodes"), "\(printed)")
    }
}
