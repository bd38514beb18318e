import Foundation
import JSON

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

/// Reads words of a command line into settings.
struct OptionReader {
    private let command: CommandOptions
    private let table: CompatibilityTable
    private var settings: [LaunchLine.Setting] = []
    private(set) var problems: [String] = []
    private(set) var warnings: [String] = []
    private(set) var withoutEffect: [String] = []
    /// Words that are no options, which ArgumentParser judges.
    private(set) var others: [String] = []
    /// The word that names the model without an option.
    private var bareModel: String?
    private var unknown: [String] = []
    /// Members of JSON options that vLLM's dotted names give, by the option's name.
    private var members: [(name: String, members: [JSONMember])] = []
    /// The words of settings that flags of higher sources revoke: such a flag is off, or asks for what Braid always does
    /// unless such a setting turns it off.
    private var revoked: [[String]] = []
    /// The words that flags of the source being read revoke in lower ones.
    private var revokedBelow: [[String]] = []

    init(_ command: CommandOptions, _ table: CompatibilityTable) {
        self.command = command
        self.table = table
    }

    /// Returns the settings read since the last call, which are those of the next lower source, except those that a
    /// higher one revokes.
    mutating func takeSettings() -> [LaunchLine.Setting] {
        let taken = settings.filter { !revoked.contains($0.words) }
        revoked += revokedBelow
        (settings, revokedBelow) = ([], [])
        return taken
    }

    /// Reads the words of a command line or, with names and values of options, of another source.
    mutating func read(_ words: [String], from origin: LaunchLine.Origin) {
        let before = problems.count
        readWords(words, origin)
        for (name, members) in members {
            var rest: ArraySlice<String> = []
            if let row = table[name] { read(row, name, JSONValue.object(members).pythonText, &rest, origin) }
        }
        members = []
        reportUnknown()
        if let bareModel, settings.count(where: { $0.option.name == "--model-path" }) > 1 {
            problems.append(
                "'\(bareModel)': the model is given twice, here and by --model-path; quote a value of several words")
        }
        guard origin != .commandLine else { return }
        for index in before..<problems.count { problems[index] = "\(origin): \(problems[index])" }
    }

    private mutating func readWords(_ words: [String], _ origin: LaunchLine.Origin) {
        var rest = words[...]
        while let word = rest.popFirst() {
            if word == "--" {
                others += [word] + rest
                break
            }
            guard Self.isOption(word) else {
                readModel(word, origin)
                continue
            }
            let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            let (name, value) = (parts[0], parts.count > 1 ? parts[1] : nil)
            if let option = command[name] {
                read(option, name, value, &rest, origin)
            } else if let row = table[name] {
                read(row, name, value, &rest, origin)
            } else if let path = dotted(name) {
                guard let text = value ?? Self.value(of: &rest) else {
                    problems.append("\(name) needs a value")
                    continue
                }
                add(text, at: path.member, of: path.option)
            } else {
                unknown.append(name)
                if value == nil, let next = rest.first, !Self.isOption(next) { rest.removeFirst() }
            }
        }
    }

    /// Returns the option that takes JSON and the member of it that a name such as
    /// `--speculative-config.num_speculative_tokens` stands for; `nil` for other names.
    private func dotted(_ name: String) -> (option: String, member: String)? {
        let parts = name.split(separator: ".", maxSplits: 1).map(String.init)
        guard parts.count == 2, let row = table[parts[0]], case .json = row.legal else { return nil }
        return (parts[0], parts[1])
    }

    /// Adds a member to the JSON of an option. The value is JSON, or else the text itself.
    private mutating func add(_ text: String, at member: String, of name: String) {
        let value = (try? JSONValue(parsing: text, limits: .strict)) ?? .string(text)
        if !members.contains(where: { $0.name == name }) { members.append((name, [])) }
        let index = members.firstIndex { $0.name == name }!
        guard !members[index].members.contains(where: { $0.key == member }) else {
            return problems.append("\(name).\(member) is given twice")
        }
        members[index].members.append(JSONMember(member, value))
    }

    /// Returns whether a word is the name of an option, not a value such as `-1`.
    static func isOption(_ word: String) -> Bool {
        word.hasPrefix("--") && word.count > 2
            || word.hasPrefix("-") && word.dropFirst().first.map { $0.isLetter } == true
    }

    /// `braid serve MODEL` is `braid serve --model-path MODEL`, and so for every command that reads a model.
    private mutating func readModel(_ word: String, _ origin: LaunchLine.Origin) {
        guard let option = command["--model-path"],
            !settings.contains(where: { $0.option == option })
        else {
            return others.append(word)
        }
        bareModel = word
        settings.append(.init(option: option, words: [option.name, word], origin: origin))
    }

    /// Reads an option that the command declares.
    private mutating func read(
        _ option: CommandOptions.Option, _ name: String, _ value: String?, _ rest: inout ArraySlice<String>,
        _ origin: LaunchLine.Origin
    ) {
        var words = [option.names.contains(name) ? name : CommandOptions.dashed(name)]
        let inPlace = value != nil
        if option.isFlag {
            switch value.map(Self.truth) {
            case nil, true??: break
            // It replaces what stands before it, and what a source of lower precedence says.
            case false??:
                words = []
                settings.removeAll { $0.option == option }
            case .some(nil): return problems.append("\(name): '\(value!)' is neither true nor false")
            }
        } else if let value = value ?? Self.value(of: &rest) {
            if let problem = CompatibilityTable.problem(with: value, of: option) {
                problems.append("\(name): \(problem)")
            }
            // The parser takes a word that begins with a dash for an option.
            words = value.hasPrefix("-") ? [words[0] + "=" + value] : words + [value]
            while option.takesList, !inPlace, let next = Self.value(of: &rest) { words.append(next) }
        } else {
            return problems.append("\(name) needs a value")
        }
        settings.append(.init(option: option, words: words, origin: origin))
    }

    /// Takes the next word as a value. Negative numbers are values; names of options are not.
    private static func value(of rest: inout ArraySlice<String>) -> String? {
        guard let next = rest.first, !isOption(next) else { return nil }
        return rest.removeFirst()
    }

    private static func truth(_ text: String) -> Bool? {
        switch text.lowercased() {
        case "true", "1", "yes", "on": true
        case "false", "0", "no", "off": false
        default: nil
        }
    }

    /// Reads an option of another engine.
    private mutating func read(
        _ row: CompatibilityOption, _ name: String, _ value: String?, _ rest: inout ArraySlice<String>,
        _ origin: LaunchLine.Origin
    ) {
        var values = value.map { [$0] } ?? []
        switch row.arity {
        case .none:
            if let value {
                guard let isOn = Self.truth(value) else {
                    return problems.append("\(name): '\(value)' is neither true nor false")
                }
                if !isOn {
                    revoke(name, origin)
                    // Another option may turn it off.
                    let opposite = Self.opposite(of: name)
                    if table[opposite] != nil { readWords([opposite], origin) }
                    return
                }
                values = []
            }
        case .one:
            if values.isEmpty, let value = Self.value(of: &rest) { values = [value] }
        case .oneOrMore:
            if value == nil { while let value = Self.value(of: &rest) { values.append(value) } }
        }
        if row.arity != .none, values.isEmpty { return problems.append("\(name) needs a value") }
        if case .refused(let neutral, let advice) = row.meaning {
            if row.arity == .none || !values.allSatisfy(neutral.contains) {
                problems.append("\(name) is not supported: \(advice)")
            }
            return
        }
        let illegal = values.compactMap(row.problem)
        problems += illegal.map { "\(name): \($0)" }
        guard illegal.isEmpty else { return }
        switch row.meaning {
        case .noEffect: withoutEffect.append(name)
        case .always: revoke(Self.opposite(of: name), origin)
        case .refused: break
        case .same(_, let translate):
            do {
                readWords(try translate(values), origin)
            } catch {
                problems.append("\(error)")
            }
        }
    }

    private static func opposite(of name: String) -> String { "--no-" + CommandOptions.dashed(name).dropFirst(2) }

    /// Revokes the settings that a flag stands for, where they stand before it and in sources of lower precedence.
    private mutating func revoke(_ name: String, _ origin: LaunchLine.Origin) {
        guard let row = table[name], row.arity == .none, case .same = row.meaning else { return }
        let own = settings
        settings = []
        readWords([name], origin)
        let words = settings.map(\.words).filter { !$0.isEmpty }
        settings = own.filter { !words.contains($0.words) }
        revokedBelow += words
    }

    /// Reports all unknown options of a source in one line.
    private mutating func reportUnknown() {
        guard !unknown.isEmpty else { return }
        let known = command.options.flatMap(\.names) + table.names
        let list = unknown.map { name in
            nearest(to: name, in: known).map { "\(name) (nearest: \($0))" } ?? name
        }
        problems.append("unknown option\(list.count > 1 ? "s" : "") \(list.joined(separator: ", "))")
        unknown = []
    }
}

// MARK: - Environment and file

extension OptionReader {
    /// Returns the settings of the variables `BRAID_…`; a variable that names no option is a warning. Further values of an
    /// option that may be repeated have a number, such as `BRAID_API_KEY_2`.
    mutating func readEnvironment(_ environment: [String: String]) -> [LaunchLine.Setting] {
        let options = Dictionary(uniqueKeysWithValues: command.options.map { ($0.variable, $0) })
        // `ParallelOptions` says what is wrong with this variable of SGLang, also where no file is read.
        let partition = ParallelOptions.partitionVariable
        if let text = environment[partition], ParallelOptions.LayerCounts(argument: text) != nil,
            command["--pp-layer-partition"] != nil
        {
            read(["--pp-layer-partition=\(text)"], from: .environment(partition))
        }
        for (name, value) in environment.sorted(by: { $0.key < $1.key })
        where name.hasPrefix("BRAID_") && name != DisaggregationOptions.secretVariable {
            let given = Self.option(ofVariable: name)
            if let option = options[name] ?? command[given]
                ?? options[Self.withoutNumber(name)].flatMap({ $0.isRepeatable ? $0 : nil }),
                !["--help", "--version", "--print-config"].contains(option.name)
            {
                read(["\(option.name)=\(value)"], from: .environment(name))
            } else if table[given] != nil {
                read(["\(given)=\(value)"], from: .environment(name))
            } else {
                let advice = nearest(to: name, in: Array(options.keys)).map { "; the nearest is \($0)" } ?? ""
                warnings.append("environment \(name): there is no such option\(advice)")
            }
        }
        return takeSettings()
    }

    /// Returns the name of the option that a variable `BRAID_…` gives.
    private static func option(ofVariable name: String) -> String {
        "--" + CommandOptions.dashed(name.dropFirst("BRAID_".count).lowercased())
    }

    /// Returns the name of a variable without a number at its end, as in `_2`.
    private static func withoutNumber(_ name: String) -> String {
        guard let mark = name.lastIndex(of: "_"), let number = Int(name[name.index(after: mark)...]), number > 1 else {
            return name
        }
        return String(name[..<mark])
    }

    /// Returns the settings of a configuration file.
    mutating func readFile(_ path: String) throws -> [LaunchLine.Setting] {
        for entry in try ConfigurationFile(path: path).entries {
            let origin = LaunchLine.Origin.file(path, line: entry.line)
            let name = "--" + entry.key.drop { $0 == "-" }
            if CommandOptions.dashed(name) == "--config" {
                problems.append("\(origin): a configuration file cannot name another one")
                continue
            }
            let isList = command[name]?.isFlag == false && command[name]?.isRepeatable == true
            if table[name]?.arity == .oneOrMore {
                read([name] + entry.values, from: origin)
            } else if entry.values.count == 1 || isList {
                for value in entry.values { read(["\(name)=\(value)"], from: origin) }
            } else {
                problems.append("\(origin): \(entry.key) takes one value, not a list of \(entry.values.count)")
            }
        }
        return takeSettings()
    }
}
