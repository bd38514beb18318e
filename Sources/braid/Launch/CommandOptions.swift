import ArgumentParser
import Foundation

/// The options of one command, as ArgumentParser describes them.
package struct CommandOptions: Sendable {
    /// An option of the command; its names include the dashes.
    package struct Option: Sendable, Equatable {
        /// The first name, which stands for the option in messages, files and the environment.
        package let name: String
        package let names: [String]
        package let isFlag: Bool
        package let isRepeatable: Bool
        /// True if all words up to the next option are values.
        package let takesList: Bool

        /// The variable of the environment that gives the option, such as `BRAID_PAGE_SIZE`.
        package var variable: String {
            "BRAID_" + name.drop { $0 == "-" }.uppercased().replacingOccurrences(of: "-", with: "_")
        }
    }

    /// The words that name the command, such as `bench serving`.
    package let path: [String]
    /// The options in the order of their declaration, with `--help` and `--version` at the end.
    package let options: [Option]
    private let byName: [String: Option]

    private init(path: [String], _ command: Description.Command) {
        self.path = path
        options = (command.arguments ?? []).compactMap { argument in
            let names = (argument.names ?? []).map { ($0.kind == "long" ? "--" : "-") + $0.name }
            guard let name = names.first(where: { $0.hasPrefix("--") }) else { return nil }
            return Option(
                name: name, names: names, isFlag: argument.kind == "flag", isRepeatable: argument.isRepeating,
                takesList: argument.parsingStrategy == "upToNextOption")
        }
        byName = Dictionary(
            options.flatMap { option in option.names.map { ($0, option) } }, uniquingKeysWith: { first, _ in first })
    }

    /// Returns the option of this name. Underscores count as dashes, as in vLLM.
    package subscript(_ name: String) -> Option? { byName[name] ?? byName[Self.dashed(name)] }

    static func dashed(_ name: String) -> String { name.replacingOccurrences(of: "_", with: "-") }

    /// Returns the command that the first words name; `nil` if they name a group of commands or none.
    package static func command(named words: [String]) -> CommandOptions? {
        var command = Description.root
        var path: [String] = []
        for word in words {
            guard let next = command.subcommands?.first(where: { $0.commandName == word }) else { break }
            command = next
            path.append(word)
        }
        return path.isEmpty || command.subcommands?.isEmpty == false ? nil : CommandOptions(path: path, command)
    }

    /// Returns what is wrong with the name of a command or of a command of a group; `nil` if nothing is.
    static func problem(withCommand words: [String]) -> String? {
        var group = Description.root
        for word in words {
            guard let commands = group.subcommands, !commands.isEmpty, !word.hasPrefix("-"), word != "help" else {
                return nil
            }
            guard let next = commands.first(where: { $0.commandName == word }) else {
                let names = commands.map(\.commandName)
                let advice = nearest(to: word, in: names).map { "the nearest is \($0); " } ?? ""
                return "there is no command '\(word)'; \(advice)legal: \(names.joined(separator: ", "))"
            }
            group = next
        }
        return nil
    }

    /// The description of all commands that ArgumentParser gives.
    private struct Description: Decodable {
        let command: Command

        struct Command: Decodable {
            let commandName: String
            let subcommands: [Command]?
            let arguments: [Argument]?
        }

        struct Argument: Decodable {
            let kind: String
            let names: [Name]?
            let isRepeating: Bool
            let parsingStrategy: String
        }

        struct Name: Decodable {
            let kind: String
            let name: String
        }

        static let root: Command = {
            do {
                return try JSONDecoder().decode(Description.self, from: Data(Braid._dumpHelp().utf8)).command
            } catch {
                preconditionFailure("ArgumentParser describes the commands in another form: \(error)")
            }
        }()
    }
}
