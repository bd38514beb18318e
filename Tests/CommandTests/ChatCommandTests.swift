import Foundation
import JSON
import TestSupport
import Testing
import braid

/// `braid chat`: what is typed, sent and printed.
@Suite(.timeLimit(.minutes(15))) struct `A chat in the terminal` {
    // MARK: - Input

    @Test func `reads a line as a message, and continues it behind a backslash`() {
        var lines = ChatLines()
        #expect(lines.take("hi") == "hi")
        #expect(lines.take("one \\") == nil && lines.hasBegun)
        #expect(lines.take("two\\") == nil)
        #expect(lines.take("") == "one \ntwo\n")
        #expect(!lines.hasBegun && lines.finish() == nil)
        #expect(lines.take("unfinished\\") == nil)
        #expect(lines.finish() == "unfinished")
    }

    @Test func `takes a pasted text for one message, whatever its lines end with`() {
        var lines = ChatLines()
        #expect(lines.take("\u{1B}[200~one\\") == nil)
        #expect(lines.take("/exit") == nil)
        #expect(lines.take("three\u{1B}[201~ and more") == "one\\\n/exit\nthree and more")
        #expect(lines.take("\u{1B}[200~short\u{1B}[201~") == "short")
        #expect(lines.take("\u{1B}[200~a\u{1B}[201~\u{1B}[200~b") == nil)
        #expect(lines.take("c\u{1B}[201~") == "ab\nc")
    }

    // MARK: - Requests

    @Test func `sends the conversation with its settings`() throws {
        var settings = ChatSession.Settings()
        settings.system = "be brief"
        settings.sampling = [JSONMember("temperature", .integer(0))]
        var session = ChatSession(model: "m", settings)
        session.add("one", answer: "1")
        session.settings.thinking = true
        let body = session.body(asking: "two")
        #expect(
            body["messages"]?.array?.map { [$0["role"]?.string, $0["content"]?.string] } == [
                ["system", "be brief"], ["user", "one"], ["assistant", "1"], ["user", "two"],
            ])
        #expect(body["temperature"]?.integer == 0 && body["stream"]?.bool == true && body["model"]?.string == "m")
        #expect(body["chat_template_kwargs"]?["thinking"]?.bool == true)
        session.reset()
        session.settings.system = nil
        session.settings.thinking = nil
        let fresh = session.body(asking: "two")
        #expect(fresh["messages"]?.array?.count == 1 && fresh["chat_template_kwargs"] == nil)
    }

    // MARK: - Answers

    private static func event(_ delta: String, finish: String = "null") -> [UInt8] {
        Array(#"{"choices":[{"index":0,"delta":\#(delta),"finish_reason":\#(finish)}],"usage":null}"#.utf8)
    }

    @Test func `reads reasoning and content under the names that servers have`() throws {
        let start = ContinuousClock.now
        var answer = ChatAnswer(start: start)
        #expect(try answer.take(Self.event(#"{"role":"assistant","content":""}"#)) == [])
        #expect(
            try answer.take(Self.event(#"{"reasoning_content":"a"}"#), at: start + .seconds(2)) == [.reasoning("a")])
        #expect(try answer.take(Self.event(#"{"reasoning":"b","content":null}"#)) == [.reasoning("b")])
        #expect(try answer.take(Self.event(#"{"content":"c"}"#), at: start + .seconds(4)) == [.content("c")])
        #expect(try answer.take(Self.event("{}", finish: #""length""#)) == [])
        #expect(answer.cost.contains("answer 3 pieces") && answer.cost.contains("then 1.0 pieces/s"), "\(answer.cost)")
        let usage = """
            {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":21,"prompt_tokens_details":{"cached_tokens":4},
            "completion_tokens_details":{"reasoning_tokens":5}}}
            """
        #expect(try answer.take(Array(usage.utf8)) == [])
        #expect(answer.content == "c")
        #expect(
            answer.cost == "prompt 7 tokens, 4 of them cached; answer 21 tokens, 5 of them reasoning; "
                + "time to first token 2.000 s; then 10.0 tokens/s; ended by length")
        for wrong in [#"{"error":{"message":"no\nroom"}}"#, "x"] {
            let error = #expect(throws: (any Error).self) { try answer.take(Array(wrong.utf8)) }
            #expect(error.map { "\($0)".contains(wrong == "x" ? "no JSON" : "no room") } == true)
        }
    }

    @Test func `shows control characters instead of obeying them`() {
        let hostile = "a\u{1B}]0;title\u{7}\u{1B}[2Jb\r\nc\td\u{9B}31m\u{7F}\u{202E}é"
        #expect(hostile.printable == "a␛]0;title␇␛[2Jb\nc\td\u{FFFD}31m␡\u{FFFD}é")
        #expect("one\n two\r\n".printableLine == "one two")
        #expect(String(repeating: "x", count: 900).printableLine.count == 500)
    }

    // MARK: - The program

    private static let model = [demoPath, "--temperature", "0", "--max-tokens", "24"]
    private static var demoPath: String { Program.demo }

    @Test func `answers line by line with a model in this process`() throws {
        let input = "hi\nsay more \\\nplease\n/stats\n/system be brief\n/think off\n/reset\nhi\n/help\n"
        let chat = try Program.run(
            ["chat"] + Self.model + ["--tp-size", "2"], input: input, environment: ["NO_COLOR": ""])
        #expect(chat.status == 0, "\(chat.errors)")
        let first = try #require(chat.output.split(separator: "\n").first)
        #expect(!first.isEmpty && !chat.output.contains("\u{1B}"), "\(chat.output)")
        let stats = try #require(chat.errors.first { $0.contains("time to first token") })
        #expect(stats.contains("tokens/s") && stats.contains("cached") && stats.contains("tensor"), "\(stats)")
        #expect(stats.contains("kernels "))
        #expect(chat.errors.contains { $0.contains("the conversation is forgotten") })
        #expect(chat.errors.contains("thinking: off") && chat.errors.contains { $0.contains("/reset forgets") })
    }

    @Test func `ends at /exit, and at what is no command`() throws {
        let ended = try Program.run(["chat"] + Self.model, input: "/exit\nhi\n")
        #expect(ended.status == 0 && ended.output.isEmpty)
        let wrong = try Program.run(["chat"] + Self.model, input: "/nonsense\nhi\n")
        #expect(wrong.status == 1 && wrong.output.isEmpty)
        #expect(wrong.errors.last?.contains("'/nonsense' is no command") == true, "\(wrong.errors)")
    }

    @Test func `says the same to a server as to a model in this process`() async throws {
        let log = Pipe()
        let server = try Program.start(
            ["serve", Program.demo, "--port", "0", "--api-key", "secret"], output: FileHandle.nullDevice, errors: log)
        defer { server.terminate() }
        let text = log.fileHandleForReading.text(until: "listening on")
        let port = try #require(text.firstMatch(of: /listening on 127\.0\.0\.1:(\d+)/)?.1)
        let options = ["--temperature", "0", "--max-tokens", "24"]
        let alone = try Program.run(["chat", Program.demo] + options, input: "hi\nand then\n")
        let key = ["BRAID_API_KEY": "secret"]
        for path in ["", "/v1", "/v1/"] {
            let remote = try Program.run(
                ["chat", "--url", "http://127.0.0.1:\(port)\(path)"] + options, input: "hi\nand then\n",
                environment: key)
            #expect(remote.status == 0 && remote.output == alone.output && !remote.output.isEmpty, "\(remote.errors)")
        }
        let stats = try Program.run(["chat", "--url", "http://127.0.0.1:\(port)"], input: "/stats\n", environment: key)
        #expect(stats.errors.last?.contains("layout one rank") == true, "\(stats.errors)")
        let refusals: [([String], [String: String], String)] = [
            ([], [:], "status 401"), (["--api-key", "wrong"], [:], "status 401"),
            (["--model", "other"], key, "'other' does not exist"),
        ]
        for (more, environment, words) in refusals {
            let refused = try Program.run(
                ["chat", "--url", "http://127.0.0.1:\(port)"] + more, input: "hi\n", environment: environment)
            #expect(refused.status == 1 && refused.errors.count == 1, "\(refused.errors)")
            #expect(refused.errors.first?.contains(words) == true, "\(refused.errors)")
        }
        let astray = try Program.run(
            ["chat", "--url", "http://127.0.0.1:\(port)/nowhere"], input: "hi\n", environment: key)
        #expect(astray.status == 1 && astray.errors.count == 1)
        #expect(astray.errors.first?.contains("/nowhere/v1/models: status 404") == true, "\(astray.errors)")
    }

    @Test func `prints nothing that a terminal obeys, from an answer or from an error`() async throws {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
        let chunk = "data: {\"choices\":[{\"delta\":{\"content\":\"a\\u001b[2Jb\"}}]}\n\ndata: [DONE]\n\n"
        let hostile = "HTTP/1.1 500 No\r\ncontent-type: text/html\r\n\r\n<p>\u{1B}]0;x\u{7}\nno</p>"
        let cases = [(head + chunk, Int32(0), "a␛[2Jb\n"), (hostile, 1, "status 500: <p>␛]0;x␇ no</p>")]
        for (answer, status, words) in cases {
            let server = try await CannedServer(answer)
            let chat = try Program.run(["chat", "--url", "\(server.address)", "--model", "m"], input: "hi\n")
            try await server.stop()
            #expect(chat.status == status && (chat.output + chat.errors.joined()).contains(words), "\(chat)")
            #expect(!(chat.output + chat.errors.joined()).contains("\u{1B}"))
        }
    }

    @Test(arguments: [
        (["--url", "http://127.0.0.1:1"], "cannot connect to http://127.0.0.1:1"),
        (["--url", "ftp://x"], "--url: 'ftp://x'"), ([], "--model-path is missing"),
        (["--url", "http://127.0.0.1:1", "--tp-size", "2"], "--tp-size: not with --url"),
        (["/nowhere/model"], "/nowhere/model: there is no such directory"),
        ([Program.demo, "--api-key", "x"], "--api-key: only with --url"),
    ])
    func `says in one line why there is none`(arguments: [String], words: String) throws {
        let refused = try Program.run(["chat"] + arguments, input: "hi\n")
        #expect(refused.status != 0 && refused.output.isEmpty && refused.errors.count == 1, "\(refused.errors)")
        #expect(refused.errors.first?.contains(words) == true, "\(refused.errors)")
    }

    @Test func `is stopped by an interrupt, and ended by a second one`() async throws {
        // A server whose answer does not end.
        let server = try await CannedServer(
            "HTTP/1.1 200 OK\r\n\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n", closes: false)
        let (typed, output, errors) = (Pipe(), Pipe(), Pipe())
        let chat = try Program.start(
            ["chat", "--url", "\(server.address)", "--model", "m"], input: typed, output: output, errors: errors)
        defer { chat.terminate() }
        try typed.fileHandleForWriting.write(contentsOf: Data("hi\n".utf8))
        #expect(output.fileHandleForReading.text(until: "a") == "a")
        chat.interrupt()
        #expect(errors.fileHandleForReading.text(until: "\n") == "stopped\n")
        #expect(chat.isRunning)
        chat.interrupt()
        chat.waitUntilExit()
        // 130 if it came before the next prompt.
        #expect(chat.terminationReason == .exit && [0, 130].contains(chat.terminationStatus))
        try await server.stop()
    }
}
