import Foundation
import Inference
import JSON

/// Commands in which one to three options have hostile values; every option of every command is tried.
struct CommandLines: AttackKind {
    static let name = "command-lines"

    private struct Command {
        var words: [String]
        /// The first name of every option that takes a value.
        var options: [String]
        var flags: [String]

        /// True if the command answers requests until it is ended, and needs no model for that.
        var servesAlone: Bool { words == ["router"] }
    }

    let program: Program
    let model: String
    private let commands: [Command]
    /// A pipe that nobody reads or writes.
    private let pipe: String

    /// Asks the program which commands and options it has.
    init(program: Program, model: String) throws {
        self.program = program
        self.model = model
        pipe = program.newPath()
        guard unsafe mkfifo(pipe, 0o600) == 0 else { throw Finding("no pipe at \(pipe): error \(errno)") }
        let log = program.newPath()
        let process = try ChildProcess([program.path, "--experimental-dump-help"], log: log)
        guard process.wait(Patience.program) == .status(0) else {
            throw Finding("the list of commands: \(process.output())")
        }
        let bytes = FileManager.default.contents(atPath: log) ?? Data()
        commands = try Self.commands(JSONValue(parsing: bytes)["command"] ?? .null, [])
        guard !commands.isEmpty else { throw Finding("the program lists no commands") }
    }

    private static func commands(_ value: JSONValue, _ before: [String]) -> [Command] {
        let name = value["commandName"]?.string ?? ""
        guard name != "help" else { return [] }
        let words = name == "braid" ? before : before + [name]
        if let inner = value["subcommands"]?.array, inner.contains(where: { $0["commandName"]?.string != "help" }) {
            return inner.flatMap { commands($0, words) }
        }
        var command = Command(words: words, options: [], flags: [])
        for argument in value["arguments"]?.array ?? [] {
            let names = argument["names"]?.array ?? []
            guard let name = names.first(where: { $0["kind"]?.string == "long" })?["name"]?.string, name != "help"
            else { continue }
            if argument["kind"]?.string == "option" { command.options.append(name) }
            if argument["kind"]?.string == "flag" { command.flags.append(name) }
        }
        return [command]
    }

    func run(_ random: inout SeededGenerator) throws {
        let command = random.pick(commands)
        var values: [String: String] = [:]
        // Most cases end at the first file that is missing, and take milliseconds.
        let isReal = random.oneIn(5)
        let path = isReal ? model : program.directory + "/missing"
        for name in ["model-path", "model"] where command.options.contains(name) { values[name] = path }
        if command.options.contains("port") { values["port"] = "0" }
        if command.options.contains("prompt") { values["prompt"] = "a" }
        if command.options.contains("base-url") { values["base-url"] = "http://127.0.0.1:1" }
        if command.options.contains("steps") { values["steps"] = "1" }
        for _ in 0...random.below(3) {
            guard !command.options.isEmpty else { break }
            let option = random.pick(command.options)
            values[option] = random.oneIn(16) ? pipe : Self.value(of: option, &random)
        }
        var arguments = command.words
        for (name, value) in values.sorted(by: { $0.key < $1.key }) {
            arguments += random.below(2) == 0 ? ["--\(name)", value] : ["--\(name)=\(value)"]
        }
        if !command.flags.isEmpty, random.oneIn(4) { arguments.append("--\(random.pick(command.flags))") }
        do {
            // Where it does not end because of a value, it serves, or computes what it was asked for.
            try program.run(arguments, limit: isReal || command.servesAlone ? 3 : nil)
        } catch let finding as Finding {
            throw Finding(
                "braid \(arguments.map { String($0.prefix(80)).debugDescription }.joined(separator: " ")): \(finding)")
        }
    }

    private static let numbers = [
        "0", "-1", "1", "2", "3", "7", "64", "65536", "65537", "1000000", "2147483647", "2147483648", "4294967296",
        "9223372036854775807", "9223372036854775808", "-9223372036854775808", "18446744073709551615",
        "18446744073709551616", "1e9",
        "1e308", "1e999", "-1e999", "1e-300", "nan", "inf", "-inf", "0.0", "0x10", "0x1p3", "1_000", "5M", " 5", "5 ",
        "+5", "١", "5m", "5h",
        "-5s",
        "9223372036854775807h", "2562047788015216h", "604801", "1,2,3", "1,,2", ",", "9223372036854775807,1",
        "1,4294967297", "1-2",
        "2x2", "auto",
        "off", "0:0",
    ]
    private static let texts = [
        "", " ", "é", "e\u{301}", "\u{1}", "\n", "\u{7F}", "--", "-", "-h", "%s%n%d", "../..", ".", "/", "/dev/null",
        "/dev/full",
        "/proc/self/mem", "no/such/directory/file", "missing.json", "fp8", "all", "[]", "{}",
        String(repeating: "a", count: 300),
        String(repeating: "9", count: 400), String(repeating: "/", count: 5000),
    ]
    /// Nothing leaves this machine, and nothing listens to others.
    private static let addresses = [
        "", "127.0.0.1", "localhost", "::1", "[::1]", "256.256.256.256", "127.0.0.1:99999", "http://127.0.0.1:1",
        "http://127.0.0.1:999999999999", "http://", "http://[", "ftp://127.0.0.1", "http://127.0.0.1:-1/",
        "127.0.0.1\r\nX: y",
        "http://user@127.0.0.1:1", "é",
    ]

    private static func value(of option: String, _ random: inout SeededGenerator) -> String {
        if ["host", "url", "addr"].contains(where: option.contains) { return random.pick(addresses) }
        if random.below(3) > 0 { return random.pick(numbers) }
        return random.below(4) == 0
            ? String(Int64(truncatingIfNeeded: random.next()) >> Int64(random.below(64))) : random.pick(texts)
    }
}
