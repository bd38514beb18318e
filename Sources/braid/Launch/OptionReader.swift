import JSON

/// Reads words of a command line into settings.
struct OptionReader {
    let command: CommandOptions
    let table: CompatibilityTable
    let names: OptionNames
    private var settings: [LaunchLine.Setting] = []
    var problems: [String] = []
    var warnings: [String] = []
    private(set) var withoutEffect: [String] = []
    /// Words that are no options, which ArgumentParser judges.
    private(set) var others: [String] = []
    /// The word that names the model without an option.
    private var bareModel: String?
    private var unknown: [String] = []
    /// Members of JSON options that vLLM's dotted names give, with the option's name and the place of the first.
    private var members: [(name: String, members: [JSONMember], origin: LaunchLine.Origin)] = []
    /// The words of settings that flags of higher sources revoke: such a flag is off, or asks for what Braid always does
    /// unless such a setting turns it off.
    private var revoked: [[String]] = []
    /// The words that flags of the source being read revoke in lower ones.
    private var revokedBelow: [[String]] = []

    init(_ command: CommandOptions, _ table: CompatibilityTable) {
        self.command = command
        self.table = table
        names = OptionNames(command, table)
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
        readPart(words, from: origin)
        readMembers()
    }

    /// Reads words of a source. Members of JSON that they give by dotted names wait for `readMembers`.
    mutating func readPart(_ words: [String], from origin: LaunchLine.Origin) {
        locatingProblems(at: origin) {
            $0.readWords(words, origin)
            $0.reportUnknown()
            if let model = $0.bareModel, $0.settings.count(where: { $0.option.name == "--model-path" }) > 1 {
                $0.problems.append(
                    "'\(model)': the model is given twice, here and by --model-path; quote a value of several words")
            }
        }
    }

    /// Reads the options of which dotted names gave members.
    mutating func readMembers() {
        for (name, members, origin) in members {
            guard let row = table[name] else { continue }
            locatingProblems(at: origin) {
                var rest: ArraySlice<String> = []
                $0.read(row, name, JSONValue.object(members).pythonText, &rest, origin)
            }
        }
        members = []
    }

    /// Runs a function, and adds the place to the problems that it finds, unless that is the command line.
    private mutating func locatingProblems(at origin: LaunchLine.Origin, _ read: (inout Self) -> Void) {
        let before = problems.count
        read(&self)
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
            readOption(parts[0], parts.count > 1 ? parts[1] : nil, &rest, origin)
        }
    }

    /// Reads an option of any kind by the name that was given.
    private mutating func readOption(
        _ given: String, _ value: String?, _ rest: inout ArraySlice<String>, _ origin: LaunchLine.Origin
    ) {
        func skipValue() { if value == nil, let next = rest.first, !Self.isOption(next) { rest.removeFirst() } }
        switch names.meaning(of: given, mayBeShortened: origin == .commandLine) {
        case .option(let name):
            if let option = command[name] {
                read(option, name, value, &rest, origin)
            } else if let row = table[name] {
                read(row, name, value, &rest, origin)
            }
        case .flagOff(let name): turnOff(name, given, value, origin)
        case .ambiguous(let names):
            problems.append(
                "\(given) is the beginning of several options: \(Self.list(names)); write the name in full")
            skipValue()
        case .unknown:
            guard let path = dotted(given) else {
                unknown.append(given)
                return skipValue()
            }
            guard let text = value ?? Self.value(of: &rest) else { return problems.append("\(given) needs a value") }
            add(text, at: path.member, of: path.option, origin)
        }
    }

    /// Returns the first names of a list, and the number of the others.
    private static func list(_ names: [String]) -> String {
        let limit = 12
        let more = names.count > limit ? " and \(names.count - limit) more" : ""
        return names.prefix(limit).joined(separator: ", ") + more
    }

    /// Turns off a flag by its name with `--no-`.
    private mutating func turnOff(_ name: String, _ given: String, _ value: String?, _ origin: LaunchLine.Origin) {
        guard let isOff = value.map(Self.truth) ?? true else {
            return problems.append("\(given): '\(value!)' is neither true nor false")
        }
        var rest: ArraySlice<String> = []
        if let option = command[name] {
            read(option, name, isOff ? "false" : "true", &rest, origin)
        } else if let row = table[name] {
            if case .noEffect = row.meaning { return withoutEffect.append(Self.opposite(of: name)) }
            read(row, name, isOff ? "false" : "true", &rest, origin)
        }
    }

    /// Tells whether a name, which may be a dotted one, is that of an option, written in full.
    func isKnown(_ name: String) -> Bool {
        names.meaning(of: name, mayBeShortened: false) != .unknown || dotted(name) != nil
    }

    /// Tells whether the value of an option may be any JSON; options that are refused may have one with their neutral values.
    func takesJSON(_ name: String) -> Bool {
        guard command[name] == nil, let row = table[name] else { return dotted(name) != nil }
        switch (row.legal, row.meaning) {
        case (.json, _), (_, .refused): return row.arity == .one
        default: return false
        }
    }

    /// Returns the option that takes JSON and the member of it that a name such as
    /// `--speculative-config.num_speculative_tokens` stands for; `nil` for other names.
    private func dotted(_ name: String) -> (option: String, member: String)? {
        let parts = name.split(separator: ".", maxSplits: 1).map(String.init)
        guard parts.count == 2, takesJSON(parts[0]) else { return nil }
        return (parts[0], parts[1])
    }

    /// Adds a member to the JSON of an option. The value is JSON, or else the text itself.
    private mutating func add(_ text: String, at member: String, of name: String, _ origin: LaunchLine.Origin) {
        let value = (try? JSONValue(parsing: text, limits: .strict)) ?? .string(text)
        if !members.contains(where: { $0.name == name }) { members.append((name, [], origin)) }
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
        if case .refused(let neutral, let advice) = row.meaning {
            if values.isEmpty || !values.allSatisfy(neutral.contains) {
                problems.append("\(name) is not supported: \(advice)")
            }
            return
        }
        if row.arity != .none, values.isEmpty { return problems.append("\(name) needs a value") }
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
        let list = unknown.map { name in
            nearest(to: name, in: names.all).map { "\(name) (nearest: \($0))" } ?? name
        }
        problems.append("unknown option\(list.count > 1 ? "s" : "") \(list.joined(separator: ", "))")
        unknown = []
    }
}
