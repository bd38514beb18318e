import Foundation
import JSON
import Synchronization
import Testing
import braid

@Suite(.timeLimit(.minutes(15))) struct EvalServerTests {
    @Test func `a completion has a text and a number of tokens`() throws {
        let answer = try JSONValue(
            parsing: #"{"text": " 5", "meta_info": {"completion_tokens": 2, "finish_reason": {"type": "length"}}}"#)
        #expect(try Completion(reading: answer) == Completion(text: " 5", tokens: 2))
    }

    @Test(arguments: [
        (#"{"error": {"message": "no room"}}"#, "no room"), (#"{"error": "no room"}"#, "no room"),
        ("{}", "no text"), ("[]", "no text"), (#"{"text": 1, "meta_info": {"completion_tokens": 1}}"#, "no text"),
        (#"{"text": "", "meta_info": {"completion_tokens": -1}}"#, "no text"),
        (#"{"text": "", "meta_info": {"completion_tokens": 1, "finish_reason": {"type": "abort"}}}"#, "aborted"),
    ])
    func `other answers are failures with a reason`(text: String, words: String) throws {
        let answer = try JSONValue(parsing: text)
        do {
            _ = try Completion(reading: answer)
            Issue.record("no error")
        } catch { #expect("\(error)".contains(words)) }
    }

    private func logProbs(_ list: String, of tokens: [Int]) throws -> [Double?] {
        try readLogProbs(JSONValue(parsing: #"{"meta_info": {"input_token_logprobs": \#(list)}}"#), of: tokens)
    }

    @Test func `log-probabilities are read for the tokens that were sent`() throws {
        let read = try logProbs("[[null, 7, null], [-0.5, 8, \"x\"], [0, 9, null]]", of: [7, 8, 9])
        #expect(read == [nil, -0.5, 0])
        #expect(try logProbs("[[-1.5, 7, null]]", of: [7]) == [nil])
    }

    @Test(arguments: [
        "[]", "null", "[[null, 7, null]]", "[[null, 7, null], [null, 8, null]]", "[[null, 7, null], [-1, 9, null]]",
        "[[null, 7, null], [0.5, 8, null]]", "[[null, 7, null], [\"-1\", 8, null]]", "[[null, 7, null], -1]",
        "[[null, 7, null], []]",
    ])
    func `lists that do not fit the tokens are refused`(list: String) {
        #expect(throws: (any Error).self) { try logProbs(list, of: [7, 8]) }
    }

    private struct Refusal: Error, CustomStringConvertible { let description: String }

    @Test func `questions keep their order, their limit, and fail alone`() async {
        let running = Mutex((now: 0, most: 0))
        let asked = await ask(Array(0..<40), parallel: 4, title: "") { question in
            running.withLock {
                $0.now += 1
                $0.most = max($0.most, $0.now)
            }
            // The first ones wait for each other, for a minute at most.
            for _ in 0..<12_000 where question < 4 && running.withLock({ $0.most < 4 }) {
                try await Task.sleep(for: .milliseconds(5))
            }
            // Later questions are answered sooner.
            try await Task.sleep(for: .milliseconds(5 - question % 5))
            running.withLock { $0.now -= 1 }
            if question % 10 == 3 { throw Refusal(description: "busy") }
            return question * 2
        }
        #expect(asked.answers == (0..<40).map { $0 % 10 == 3 ? nil : $0 * 2 })
        #expect(asked.failures == ["busy", "busy", "busy", "busy"])
        #expect(running.withLock { $0.most } == 4)
        #expect(asked.seconds > 0)
    }

    @Test func `no questions are no trouble`() async {
        let asked = await ask([Int](), parallel: 1, title: "") { $0 }
        #expect(asked.answers.isEmpty)
        #expect(asked.failures.isEmpty)
    }

    @Test func `files that are none are refused with the option`() {
        for path in ["/nowhere/at/all", "/", "/dev/null"] {
            do {
                _ = try DataFile(path: path, option: "--shots-path", limit: 10)
                Issue.record("no error")
            } catch { #expect("\(error)".contains("--shots-path"), "\(error)") }
        }
    }

    @Test func `files are read behind symbolic links, and pipes are refused at once`() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("braid-files-\(UUID())").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        // Kubernetes mounts files of a ConfigMap as two links, one behind the other.
        try Data("four".utf8).write(to: URL(fileURLWithPath: folder + "/data"))
        try FileManager.default.createSymbolicLink(atPath: folder + "/..data", withDestinationPath: "data")
        try FileManager.default.createSymbolicLink(atPath: folder + "/link", withDestinationPath: "..data")
        #expect(try DataFile(path: folder + "/link", limit: 4).bytes == Array("four".utf8))
        #expect(unsafe mkfifo(folder + "/pipe", 0o600) == 0)
        try FileManager.default.createSymbolicLink(atPath: folder + "/loop", withDestinationPath: "loop")
        try FileManager.default.createSymbolicLink(atPath: folder + "/dangling", withDestinationPath: "nothing")
        for (name, reason) in [
            ("pipe", "is not a regular file"), ("loop", "cannot be opened"), ("dangling", "No such file"),
            ("link", "has 4 bytes, more than the limit of 3"),
        ] {
            let error = #expect(throws: (any Error).self) {
                try DataFile(path: "\(folder)/\(name)", option: "--config", limit: 3)
            }
            let text = error.map { "\($0)" } ?? ""
            #expect(text.hasPrefix("--config: \(folder)/\(name) ") && text.contains(reason), "\(text)")
        }
    }
}
