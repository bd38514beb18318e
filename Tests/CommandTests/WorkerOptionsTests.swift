import ArgumentParser
import Routing
import Testing
import braid

@Suite struct `The workers of a router` {
    private static func options(_ words: String) throws -> WorkerOptions {
        let line = try LaunchLine(["router"] + words.split(separator: " ").map(String.init), environment: [:])
        return try WorkerOptions.parse(Array(line.arguments.dropFirst()))
    }

    private static func workers(_ words: String) throws -> [String] {
        try options(words).workers(of: RouterConfiguration()).map { "\($0.role.rawValue) \($0.address)" }
    }

    private static func problem(_ words: String) throws -> String {
        "\(try #require(throws: (any Error).self) { try workers(words) })"
    }

    @Test func `are a list behind one option`() throws {
        #expect(
            try Self.workers("--worker-urls http://a:1 http://b:2 --worker-urls=http://c:3")
                == ["regular http://a:1", "regular http://b:2", "regular http://c:3"])
        #expect(try Self.workers("--worker_urls http://a:1") == ["regular http://a:1"])
        #expect(try Self.workers("") == [])
    }

    @Test func `are not the router itself`() throws {
        let words = "is the router's own address (--port)"
        #expect(try Self.problem("--worker-urls http://127.0.0.1:30000").contains(words))
        #expect(try Self.problem("--worker-urls http://a:1 http://localhost:30000/v1").contains(words))
    }

    @Test func `are prefill and decode servers, as SGLang's router is given them`() throws {
        #expect(
            try Self.workers(
                "--pd-disaggregation --prefill http://p:1 8998 --prefill http://q:1 none --decode http://d:2")
                == ["prefill http://p:1", "prefill http://q:1", "decode http://d:2"])
    }

    @Test func `are of one kind`() throws {
        #expect(try Self.problem("--pd-disaggregation --worker-urls http://a:1").contains("--prefill and --decode"))
        #expect(try Self.problem("--prefill http://a:1").contains("--pd-disaggregation"))
        #expect(try Self.problem("--pd-disaggregation --prefill http://a:1").contains("no decode server"))
        #expect(try Self.problem("--worker-urls http://a:1 http://a:1").contains("given twice"))
        #expect(try Self.problem("--worker-urls a:1 https://b").split(separator: "\n").count == 2)
        let many = (0...PrefixIndex.maxSlots).map { "http://h\($0):1" }.joined(separator: " ")
        #expect(try Self.problem("--worker-urls \(many)").contains("at most \(PrefixIndex.maxSlots)"))
    }

    private static func file(_ text: String, roles: Bool) throws -> [String] {
        try WorkerOptions.read(DataFile(name: "w", text), roles).map { "\($0.role.rawValue) \($0.address)" }
    }

    @Test func `are lines of a file`() throws {
        #expect(
            try Self.file("# all\nhttp://a:1\n\n  http://b:2 # second\n", roles: false)
                == ["regular http://a:1", "regular http://b:2"])
        #expect(
            try Self.file("prefill http://p:1 8998\ndecode\thttp://d:2\n", roles: true)
                == ["prefill http://p:1", "decode http://d:2"])
    }

    @Test(arguments: [
        ("http://a:1\nhttps://b", false, "w:2:"), ("decode http://a:1", false, "w:1:"), ("http://a:1", true, "w:1:"),
        ("regular http://a:1", true, "w:1:"), ("decode", true, "w:1:"),
    ])
    func `and nothing else, or the line is named`(_ text: String, _ roles: Bool, _ place: String) throws {
        let error = try #require(throws: (any Error).self) { try Self.file(text, roles: roles) }
        #expect("\(error)".hasPrefix(place))
    }

    @Test func `options without a meaning here are named, and others refused`() throws {
        let line = try LaunchLine(
            ["router", "--mini-lb", "--prefill-policy", "random", "--cache-threshold", "0.5"], environment: [:])
        #expect(line.startLines == ["has no effect here: --prefill-policy, --cache-threshold"])
        #expect(line.arguments.contains("random"))
        let error = try #require(throws: (any Error).self) {
            try LaunchLine(["router", "--service-discovery", "--worker-ulrs", "http://a"], environment: [:])
        }
        #expect(
            "\(error)".contains("--service-discovery is not supported") && "\(error)".contains("nearest: --worker-urls")
        )
    }
}
