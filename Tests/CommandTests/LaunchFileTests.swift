import ArgumentParser
import Foundation
import Testing
import braid

/// A file with a text, for a configuration.
enum TemporaryFile {
    static func with(_ text: String, _ use: (String) throws -> Void) throws {
        let path = NSTemporaryDirectory() + "braid-config-\(UUID().uuidString)"
        try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        defer { try? FileManager.default.removeItem(atPath: path) }
        try use(path)
    }
}

@Suite struct `A configuration file` {
    /// Returns the words that a file adds to a command line.
    private static func words(_ text: String, environment: [String: String] = [:]) throws -> (LaunchLine, [String]) {
        var found: (LaunchLine, [String])?
        try TemporaryFile.with(text) { path in
            let line = try LaunchLine(["serve", "m", "--config", path], environment: environment)
            found = (line, Array(line.arguments.dropFirst(5)))
        }
        return try #require(found)
    }

    @Test(arguments: ["page-size: null", "page-size: ~", "page-size: NULL # why", "{\"page-size\": null}"])
    func `leaves out an option whose value is null`(text: String) throws {
        #expect(try Self.words(text).1 == [])
        #expect(try Self.words(text, environment: ["BRAID_PAGE_SIZE": "8"]).1 == ["--page-size", "8"])
        #expect(try Self.words("page-size: 'null'").1 == ["--page-size", "null"])
    }

    @Test func `names an unknown option also if its value is null`() throws {
        try TemporaryFile.with("port: 1\npage-sise: null") { path in
            let error = try #require(throws: (any Error).self) {
                try LaunchLine(["serve", "m", "--config", path], environment: [:])
            }
            #expect("\(error)" == "\(path):2: unknown option --page-sise (nearest: --page-size)")
        }
    }

    private static let speculation = ["--speculative-algorithm", "NEXTN", "--speculative-num-steps", "3"]

    @Test(arguments: [
        "speculative-config:\n  method: mtp\n  num_speculative_tokens: 3",
        "speculative-config:\n    num_speculative_tokens: 3 # drafts\n\n    \"method\": 'mtp'",
        "speculative-config: {method: mtp, num_speculative_tokens: 3}",
        "speculative_config: {\"method\": \"mtp\", \"num_speculative_tokens\":3}",
        "speculative-config: '{\"method\": \"mtp\", \"num_speculative_tokens\": 3}'",
        "speculative-config.method: mtp\nspeculative-config.num_speculative_tokens: 3",
        "{\"speculative-config\": {\"method\": \"mtp\", \"num_speculative_tokens\": 3}}",
    ])
    func `gives JSON as a map, in any form`(text: String) throws {
        #expect(try Self.words(text).1 == Self.speculation)
    }

    @Test func `gives nested maps and lists as JSON`() throws {
        let text = """
            compilation-config:
              level: 3
              sizes: [1, 2, {a: b}]
              passes:
                fuse: true
                kinds:
                - a
                - 'b: c'
              none: ~
            page-size: 32
            allowed-origins: ["https://a.example", '*']
            """
        let (line, words) = try Self.words(text)
        #expect(line.withoutEffect == ["--compilation-config"])
        #expect(
            words == ["--page-size", "32", "--cors-allow-origin", "https://a.example", "--cors-allow-origin", "*"])
    }

    @Test(arguments: [
        ("page-size:\n  a: 1", "1: page-size takes a value, no map; only options that take JSON"),
        ("port: 1\ncuda-graph-bs: {a: 1}", "2: cuda-graph-bs takes a value, no map"),
        ("hf-overrides:\n  a: 1", "1: --hf-overrides is not supported: config.json is read as it is"),
        ("speculative-config:\n  method: mtp\n  method: mtp", "3: method is given twice"),
        ("speculative-config:\n  method: mtp\n    x: 1", "3: it is indented more than the line before"),
        ("speculative-config:\n  method:\n", "2: method has no value; null leaves an option out"),
        ("speculative-config: {method: mtp", "1: the value of speculative-config is not a plain value"),
        ("speculative-config: {method: mtp} x", "1: the value of speculative-config is not a plain value"),
        ("port: 1\n\tpage-size: 2", "2: a tab indents it"),
        ("allowed-host:\n- a\n- b: c", "3: the item is not a plain value"),
        ("speculative-config:\n  colour: red\n  method: mtp", "1: --speculative-config: 'colour' is not supported"),
    ])
    func `refuses what it cannot follow, with the line`(text: String, words: String) throws {
        try TemporaryFile.with(text) { path in
            let error = try #require(throws: (any Error).self) {
                try LaunchLine(["serve", "m", "--config", path], environment: [:])
            }
            #expect("\(error)".hasPrefix("\(path):\(words)"), "\(error)")
        }
    }

    @Test func `is bounded in depth`() throws {
        let deep = String(repeating: "[", count: 10_000) + String(repeating: "]", count: 10_000)
        let lines = (0..<2000).map { String(repeating: " ", count: $0) + "a:" }.joined(separator: "\n")
        for text in ["compilation-config: \(deep)", lines + " 1"] {
            #expect(throws: (any Error).self) { try Self.words(text) }
        }
    }

    @Test func `keeps numbers as they are written, also in --print-config`() throws {
        let text = "mem-fraction-static: 0.7\ncontext-length: 128k\nwatchdog-timeout: 300.0"
        let (line, words) = try Self.words(text)
        #expect(
            words == ["--mem-fraction-static", "0.7", "--context-length", "128k", "--watchdog-timeout", "300.0"])
        let options = try #require(CommandOptions.command(named: ["serve"]))
        let lines = EffectiveConfiguration(of: try Braid.parseAsRoot(line.arguments), options, line.settings).lines
        #expect(lines.contains { $0.hasPrefix("mem-fraction-static: 0.7  # ") }, "\(lines)")
    }
}
