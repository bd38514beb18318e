/// A command line as it was given, completed by a configuration file and the environment, and rewritten to the options
/// that the command declares.
///
/// A value of the command line replaces one of the environment, that one of the configuration file, that the default.
/// All unknown options and illegal values are reported together.
package struct LaunchLine: Sendable {
    /// The place that an option's value comes from.
    package enum Origin: Sendable, Equatable, CustomStringConvertible {
        case commandLine
        case environment(String)
        case file(String, line: Int)

        package var description: String {
            switch self {
            case .commandLine: "command line"
            case .environment(let name): "environment \(name)"
            case .file(let path, let line): "\(path):\(line)"
            }
        }
    }

    /// An option of the command with the words that give it, and where they come from. A flag that is off has no words.
    package struct Setting: Sendable, Equatable {
        package let option: CommandOptions.Option
        package let words: [String]
        package let origin: Origin
    }

    /// The words as they were given, with the names of options in full.
    package private(set) var given: [String]
    /// The words for ArgumentParser, without the name of the program.
    package private(set) var arguments: [String]
    package private(set) var settings: [Setting] = []
    /// Names of options that have no effect, in the order in which they were given.
    package private(set) var withoutEffect: [String] = []
    /// Warnings for the operator.
    package private(set) var warnings: [String] = []

    /// The line of the command that runs.
    @TaskLocal package static var current: LaunchLine?

    /// Reads a command line.
    ///
    /// - Parameters:
    ///   - given: The words after the name of the program.
    ///   - environment: The environment; its `BRAID_…` variables give options of the commands that serve.
    /// - Throws: `CommandError` with all problems, a line each.
    package init(_ given: [String], environment: [String: String]) throws {
        self.given = given
        arguments = given
        guard let command = CommandOptions.command(named: given) else {
            if let problem = CommandOptions.problem(withCommand: given) { throw CommandError(problem) }
            return
        }
        let words = Array(given.dropFirst(command.path.count))
        // ArgumentParser answers these, whatever else is there.
        if words.contains(where: { ["-h", "--help", "-help", "--version"].contains($0) }) { return }
        let table = CompatibilityTable(for: command.path)
        var reader = OptionReader(command, table)
        self.given = command.path + reader.names.inFull(words)
        reader.read(words, from: .commandLine)
        var sources = [reader.takeSettings()]
        if command["--config"] != nil {
            sources.append(reader.readEnvironment(environment))
            let path = sources.joined().last { $0.option.name == "--config" }?.words.last
            if let path { sources.append(try reader.readFile(path)) }
        }
        guard reader.problems.isEmpty else { throw CommandError(reader.problems.joined(separator: "\n")) }
        for source in sources {
            let known = Set(settings.map(\.option.name))
            settings += source.filter { !known.contains($0.option.name) }
        }
        withoutEffect = reader.withoutEffect
        warnings = reader.warnings
        // An option that takes all words up to the next one takes none of the others.
        let others = reader.others.split(separator: "--", maxSplits: 1, omittingEmptySubsequences: false)
        arguments = command.path + others[0] + settings.flatMap(\.words)
        if others.count > 1 { arguments += ["--"] + others[1] }
    }

    /// The name of an option of the command line that took the last word, of several, as one of its values; `nil` if none
    /// did. Where the model is missing, that word may be meant as its name.
    package var lastList: String? {
        settings.last { $0.origin == .commandLine && $0.option.takesList && $0.words.count > 2 }?.option.name
    }

    /// Returns a message with the places from which the options that it names have their values, if these are not before
    /// everybody's eyes on the command line.
    package func withOrigins(_ message: String) -> String {
        let words = Set(message.split { !$0.isLetter && !$0.isNumber && $0 != "-" }.map(String.init))
        let origins = settings.filter { $0.origin != .commandLine && !words.isDisjoint(with: $0.option.names) }
            .map { "\($0.option.name) is from \($0.origin)" }
        return origins.isEmpty ? message : "\(message) (\(origins.joined(separator: ", ")))"
    }

    /// The lines to print when the command starts.
    package var startLines: [String] {
        warnings + (withoutEffect.isEmpty ? [] : ["has no effect here: " + withoutEffect.joined(separator: ", ")])
    }
}
