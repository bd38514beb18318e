import ArgumentParser
import Disaggregation
import Foundation
import KVTransport
import Testing
import braid

@Suite struct `Options of disaggregation` {
    private static func plan(
        _ line: String, environment: [String: String] = [:]
    ) throws -> DisaggregationOptions.Plan? {
        let options = try DisaggregationOptions.parse(line.split(separator: " ").map(String.init))
        return try options.plan(environment: environment)
    }

    private static let environment = [DisaggregationOptions.secretVariable: "0123456789abcdef\n"]

    @Test func `give a server its role`() throws {
        #expect(try Self.plan("") == nil)
        #expect(try Self.plan("--disaggregation-mode none --disaggregation-transfer-backend mooncake") == nil)
        #expect(
            try Self.plan("--disaggregation-mode prefill")?.role == .prefill(host: "127.0.0.1", port: 8998))
        let far = try #require(
            try Self.plan(
                "--disaggregation-mode prefill --disaggregation-host 0.0.0.0 --disaggregation-bootstrap-port 7",
                environment: Self.environment))
        #expect(far.role == .prefill(host: "0.0.0.0", port: 7) && far.secret == Array("0123456789abcdef".utf8))
        let targets = [
            "localhost:9": TransferDialer.Target(host: "localhost", port: 9),
            "127.0.0.1": TransferDialer.Target(host: "127.0.0.1", port: 8998),
            "[::1]:70": TransferDialer.Target(host: "::1", port: 70),
            "[::1]": TransferDialer.Target(host: "::1", port: 8998),
        ]
        for (text, target) in targets {
            let line = "--disaggregation-mode decode --disaggregation-prefill \(text) --disaggregation-local-prefill 3"
            #expect(try Self.plan(line)?.role == .decode([target], localPrefillTokens: 3))
        }
        let several = "--disaggregation-mode decode --disaggregation-prefill localhost:9,[::1]:70"
        #expect(
            try Self.plan(several)?.role
                == .decode([targets["localhost:9"]!, targets["[::1]:70"]!], localPrefillTokens: nil))
    }

    @Test(arguments: [
        ("--disaggregation-mode decode", "needs the address of the prefill server: --disaggregation-prefill HOST:PORT"),
        ("--disaggregation-prefill x:1", "--disaggregation-prefill needs --disaggregation-mode decode"),
        (
            "--disaggregation-mode prefill --disaggregation-prefill x:1",
            "--disaggregation-prefill needs --disaggregation-mode decode, and the mode is prefill"
        ),
        ("--disaggregation-host ::1", "--disaggregation-host needs --disaggregation-mode prefill"),
        ("--disaggregation-local-prefill 1", "--disaggregation-local-prefill needs --disaggregation-mode decode"),
        ("--disaggregation-secret-file x", "--disaggregation-secret-file needs --disaggregation-mode"),
        ("--disaggregation-mode decode --disaggregation-prefill a:b", "'a:b' is no address"),
        ("--disaggregation-mode decode --disaggregation-prefill a:0", "'a:0' is no address"),
        ("--disaggregation-mode decode --disaggregation-prefill a:65536", "'a:65536' is no address"),
        ("--disaggregation-mode decode --disaggregation-prefill http://a:1", "'http://a:1' is no address"),
        ("--disaggregation-mode decode --disaggregation-prefill 10.0.0.2:1", "needs a secret"),
        ("--disaggregation-mode decode --disaggregation-prefill 127.0.0.1:1,10.0.0.2:1", "needs a secret"),
        ("--disaggregation-mode decode --disaggregation-prefill 127.0.0.1:1,", "'' is no address"),
        ("--disaggregation-mode decode --disaggregation-prefill a:1,b:1,a:1", "a:1 is given twice"),
        ("--disaggregation-mode decode --disaggregation-prefill 127.evil.example:1", "needs a secret"),
        ("--disaggregation-mode prefill --disaggregation-host 0.0.0.0", "needs a secret"),
        (
            "--disaggregation-mode prefill --disaggregation-transfer-backend nixl",
            "nixl is not supported; use tcp or ucx"
        ),
        ("--disaggregation-transfer-backend pigeons", "'pigeons' is not legal; legal: tcp, ucx"),
        ("--disaggregation-mode prefill --disaggregation-secret-file /nowhere", "/nowhere cannot be read"),
    ]) func `that do not fit are refused`(line: String, expected: String) throws {
        let error = try #require(throws: (any Error).self) { try Self.plan(line) }
        #expect("\(error)".contains(expected) && !"\(error)".contains("\n"), "\(error)")
    }

    @Test func `choose how keys are sent`() throws {
        let line = "--disaggregation-mode prefill"
        #expect(try Self.plan(line)?.backend == .tcp)
        #expect(try Self.plan(line + " --disaggregation-transfer-backend tcp")?.backend == .tcp)
        // Where nothing is sent, nothing is looked for.
        #expect(try Self.plan("--disaggregation-transfer-backend ucx") == nil)
        do {
            #expect(try Self.plan(line + " --disaggregation-transfer-backend ucx")?.backend == .ucx)
            #expect(UCXLibrary.problem() == nil)
        } catch {
            let problem = try #require(UCXLibrary.problem())
            #expect("\(error)" == "--disaggregation-transfer-backend: " + problem)
            #expect(problem.contains("install libucx0") && problem.contains("or use tcp"))
        }
    }

    @Test func `do not wait for a secret that nobody writes`() throws {
        let pipe = NSTemporaryDirectory() + "braid-secret-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: pipe) }
        #expect(unsafe mkfifo(pipe, 0o600) == 0)
        let error = #expect(throws: (any Error).self) {
            try Self.plan("--disaggregation-mode prefill --disaggregation-secret-file \(pipe)")
        }
        let text = error.map { "\($0)" } ?? ""
        #expect(text.contains("\(pipe) cannot be read: it is a pipe into which nothing was written"), "\(text)")
    }

    @Test func `read the secret from a file or the environment, and not from both`() throws {
        let path = NSTemporaryDirectory() + "braid-secret-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        let line = "--disaggregation-mode prefill --disaggregation-secret-file \(path)"
        let secrets = [("0123456789abcdef", 16), ("0123456789abcdef\r\n", 16), ("0123456789abcde\n\n", 0), ("", 0)]
        for (text, count) in secrets {
            try Data(text.utf8).write(to: URL(fileURLWithPath: path))
            #expect(((try? Self.plan(line))??.secret.count ?? 0) == count)
        }
        // Programs that keep secrets write them into pipes.
        let pipe = path + ".pipe"
        defer { try? FileManager.default.removeItem(atPath: pipe) }
        #expect(unsafe mkfifo(pipe, 0o600) == 0)
        let writer = Thread {
            let descriptor = unsafe open(pipe, O_WRONLY)
            _ = unsafe write(descriptor, "0123456789abcdef\n", 17)
            close(descriptor)
        }
        writer.start()
        #expect(try Self.plan("--disaggregation-mode prefill --disaggregation-secret-file \(pipe)")?.secret.count == 16)
        try Data(repeating: 65, count: 5000).write(to: URL(fileURLWithPath: path))
        #expect(throws: (any Error).self) { try Self.plan(line) }
        try Data("0123456789abcdef".utf8).write(to: URL(fileURLWithPath: path))
        #expect(throws: (any Error).self) { try Self.plan(line, environment: Self.environment) }
        #expect(throws: (any Error).self) {
            try Self.plan(
                "--disaggregation-mode prefill", environment: [DisaggregationOptions.secretVariable: "short"])
        }
        // Elsewhere the variable is no option, and nothing to warn of.
        let given = try LaunchLine(["serve", "m"], environment: Self.environment)
        #expect(given.warnings.isEmpty && given.settings.count == 1)
    }
}
