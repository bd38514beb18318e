import ArgumentParser
import Foundation
import Parallelism
import TestSupport
import Testing
import braid

/// `Tests/Frozen/launch-flags.txt` lists all options of SGLang's and vLLM's servers, of one release each.
@Suite struct `A flag of another engine's server` {
    private struct Flag: CustomTestStringConvertible {
        let names: [String]
        let kind: String
        var testDescription: String { names[0] }
    }

    private static func flags() throws -> [Flag] {
        let text = try String(contentsOfFile: Golden.root + "/Tests/Frozen/launch-flags.txt", encoding: .utf8)
        return text.split(separator: "\n").filter { !$0.hasPrefix("#") }.map { line in
            let words = line.split(separator: " ").map(String.init)
            return Flag(names: Array(words.dropLast()), kind: words.last!)
        }
    }

    @Test func `is known by all its names, with the number of values that it has there`() throws {
        let (own, table) = (try #require(CommandOptions.command(named: ["serve"])), CompatibilityTable(for: ["serve"]))
        let flags = try Self.flags()
        #expect(flags.count > 800)
        for flag in flags {
            for name in flag.names {
                if let option = own[name] {
                    #expect(option.isFlag == (flag.kind == "flag"), "\(name)")
                } else if let row = table[name] {
                    let kind =
                        switch row.arity {
                        case .none: "flag"
                        case .one: "value"
                        case .oneOrMore: "list"
                        }
                    #expect(kind == flag.kind, "\(name)")
                } else {
                    Issue.record("\(name) is unknown")
                }
            }
        }
    }

    @Test func `is turned off by its name with --no- before it`() throws {
        let table = CompatibilityTable(for: ["serve"])
        var count = 0
        for name in table.rows.flatMap(\.names) where name.hasPrefix("--") && table["--no-" + name.dropFirst(2)] == nil
        {
            guard let row = table[name], case .none = row.arity else { continue }
            count += 1
            let off = "--no-" + name.dropFirst(2)
            let line = try LaunchLine(["serve", "m", off], environment: [:])
            let isNamed = if case .noEffect = row.meaning { true } else { false }
            #expect(line.startLines == (isNamed ? ["has no effect here: \(off)"] : []), "\(off)")
            #expect(line.arguments == ["serve", "--model-path", "m"], "\(off)")
        }
        #expect(count > 100)
        let line = try LaunchLine(
            ["serve", "m", "--preload", "--no-preload", "--no-access-log=false"], environment: [:])
        #expect(line.arguments == ["serve", "--model-path", "m", "--access-log"])
        let error = try #require(throws: (any Error).self) {
            try LaunchLine(["serve", "m", "--no-preload=perhaps", "--no-page-size"], environment: [:])
        }
        #expect("\(error)".contains("--no-preload: 'perhaps' is neither true nor false"))
        #expect("\(error)".contains("unknown option --no-page-size"))
    }

    @Test(arguments: [
        ("deepep", "alltoall"), ("deepep_v2", "alltoall"), ("mooncake", "alltoall"), ("nixl", "alltoall"),
        ("mori", "alltoall"), ("pplx", "alltoall"), ("flashinfer", "alltoall"), ("flashinfer_megamoe", "alltoall"),
        ("megamoe", "alltoall"), ("ascend_fuseep", "alltoall"), ("alltoall", "alltoall"), ("none", "none"),
        ("ascend_tp", "none"),
    ])
    func `for sending rows to experts means all-to-all or none`(value: String, expected: String) throws {
        let options = try ParallelOptions.parse(["--moe-a2a-backend", value])
        #expect(options.request().exchange?.rawValue == expected)
    }

    @Test func `for structured outputs has the members that change nothing here, and one that does`() throws {
        func line(_ json: String) throws -> LaunchLine {
            try LaunchLine(["serve", "m", "--structured-outputs-config", json], environment: [:])
        }
        let both = try line(
            #"{"backend": "xgrammar", "reasoning_parser": "deepseek_v3", "disable_any_whitespace": false}"#)
        #expect(both.arguments.suffix(2) == ["--reasoning-parser", "deepseek_v3"])
        #expect(both.withoutEffect == ["--structured-outputs-config.backend"])
        #expect(try line("{}").arguments == ["serve", "--model-path", "m"])
        let dotted = try LaunchLine(
            ["serve", "m", "--structured-outputs-config.reasoning_parser", "glm45"], environment: [:])
        #expect(dotted.arguments.suffix(2) == ["--reasoning-parser", "glm45"])
        for (json, words) in [
            (#"{"backend": "mystery"}"#, "'mystery' is not legal; legal: auto, xgrammar"), ("[]", "not an object"),
            (#"{"disable_any_whitespace": true}"#, "'disable_any_whitespace' is not supported with the value true"),
            (#"{"disable_additional_properties": true}"#, "write additionalProperties into each schema"),
            (#"{"enable_in_reasoning": true}"#, "a grammar begins where the reasoning ends"),
            (#"{"colour": 1}"#, "'colour' is not supported"),
        ] {
            let error = try #require(throws: (any Error).self) { try line(json) }
            #expect("\(error)".hasPrefix("--structured-outputs-config") && "\(error)".contains(words), "\(error)")
        }
    }

    @Test(arguments: [
        (["--spec-method", "deepseek_mtp", "--spec-tokens", "3"], "--speculative-num-steps", "3"),
        (["-n", "2", "-r", "1"], "--node-rank", "1"), (["-q", "fp8"], "--quantization", "fp8"),
        (["--shutdown-timeout", "9"], "--drain-timeout", "9"),
        (["--max-num-queued-reqs", "7"], "--max-queued-requests", "7"),
        (["--device-memory-utilization", "0.7"], "--mem-fraction-static", "0.7"),
    ])
    func `with another name here has its meaning`(words: [String], option: String, value: String) throws {
        let line = try LaunchLine(["serve", "m"] + words, environment: [:])
        #expect(line.settings.contains { $0.words == [option, value] }, "\(line.settings)")
        #expect(line.startLines.isEmpty)
    }

    @Test func `that reads all weights before the start does so here`() throws {
        for words in [["--safetensors-load-strategy", "prefetch"], ["--weight-loader-prefetch-checkpoints"]] {
            let line = try LaunchLine(["serve", "m"] + words, environment: [:])
            #expect(line.arguments.last == "--preload")
        }
        let lazy = try LaunchLine(["serve", "m", "--safetensors-load-strategy", "lazy"], environment: [:])
        #expect(lazy.arguments == ["serve", "--model-path", "m"])
    }
}
