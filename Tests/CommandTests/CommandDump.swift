import ArgumentParser
import Foundation
import Testing
import braid

/// The description of a command that ArgumentParser gives.
struct CommandDump: Decodable {
    let commandName: String
    let subcommands: [CommandDump]?
    let arguments: [Argument]?

    struct Argument: Decodable {
        let kind: String
        let names: [Name]?
        let valueName: String?
        let abstract: String?
        let allValues: [String]?
        let defaultValue: String?
    }

    struct Name: Decodable {
        let kind: String
        let name: String
    }

    /// Returns the description of the program, with all of its commands.
    static func root() throws -> CommandDump {
        struct Whole: Decodable { let command: CommandDump }
        let error = try #require(throws: (any Error).self) {
            _ = try Braid.parseAsRoot(["--experimental-dump-help"])
        }
        return try JSONDecoder().decode(Whole.self, from: Data(Braid.fullMessage(for: error).utf8)).command
    }

    /// The names of all options of the command and of those below it.
    var optionNames: Set<String> {
        let own = (arguments ?? []).flatMap { $0.names ?? [] }.map { ($0.kind == "short" ? "-" : "--") + $0.name }
        return (subcommands ?? []).reduce(into: Set(own)) { $0.formUnion($1.optionNames) }
    }

    /// The words that name each command that runs.
    func paths(behind path: [String] = []) -> [[String]] {
        guard let subcommands, !subcommands.isEmpty else { return [path] }
        return subcommands.flatMap { $0.paths(behind: path + [$0.commandName]) }
    }
}
