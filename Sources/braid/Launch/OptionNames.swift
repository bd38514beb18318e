/// The names by which the options of a command can be given: its own, those of other engines, those of flags with `--no-`
/// before them, and on the command line also beginnings of them.
struct OptionNames {
    /// What a name stands for.
    enum Meaning: Equatable {
        /// An option of this name.
        case option(String)
        /// The flag of this name, turned off.
        case flagOff(String)
        /// The beginning of the names of several options.
        case ambiguous([String])
        case unknown
    }

    private let command: CommandOptions
    private let table: CompatibilityTable

    init(_ command: CommandOptions, _ table: CompatibilityTable) {
        self.command = command
        self.table = table
    }

    /// All names that are written in full, without those of flags turned off.
    var all: [String] { command.options.flatMap(\.names) + table.names }

    /// Returns what a name stands for.
    ///
    /// - Parameter mayBeShortened: True to find an option also by the beginning of its name, as Python's argparse does.
    func meaning(of given: String, mayBeShortened: Bool) -> Meaning {
        let name = CommandOptions.dashed(given)
        if command[given] != nil || table[given] != nil { return .option(given) }
        if let flag = flag(turnedOffBy: name) { return .flagOff(flag) }
        guard mayBeShortened, name.hasPrefix("--"), name.count > 2 else { return .unknown }
        let candidates = candidates(name)
        guard let first = candidates.first else { return .unknown }
        // Names of one option are not ambiguous.
        guard Set(candidates.map(key)).count == 1 else { return .ambiguous(candidates) }
        return flag(turnedOffBy: first).map(Meaning.flagOff) ?? .option(first)
    }

    /// Returns words of a command line with the names of options in full, and with the command's own names where other
    /// engines only have another name.
    func inFull(_ words: [String]) -> [String] {
        let end = words.firstIndex(of: "--") ?? words.endIndex
        return words[..<end].map { word in
            let given = word.prefix { $0 != "=" }
            guard OptionReader.isOption(word), command[String(given)] == nil,
                case .option(let name) = meaning(of: String(given), mayBeShortened: true)
            else { return word }
            let own = key(name)
            return (command[own] == nil ? name : own) + word.dropFirst(given.count)
        } + words[end...]
    }

    private func candidates(_ beginning: String) -> [String] {
        let off = beginning.hasPrefix(Self.off) ? all.filter(isFlag).map { Self.off + $0.dropFirst(2) } : []
        var seen: Set<String> = []
        return (all + off).filter { $0.hasPrefix(beginning) && seen.insert($0).inserted }
    }

    private static let off = "--no-"

    /// Returns the flag that a name with `--no-` turns off; `nil` if the name is an option's own, or there is no such flag.
    private func flag(turnedOffBy name: String) -> String? {
        guard name.hasPrefix(Self.off), command[name] == nil, table[name] == nil else { return nil }
        let flag = "--" + name.dropFirst(Self.off.count)
        return isFlag(flag) ? flag : nil
    }

    private func isFlag(_ name: String) -> Bool {
        if let option = command[name] { return option.isFlag && !["--help", "--version"].contains(option.name) }
        guard name.hasPrefix("--"), let row = table[name], case .none = row.arity else { return false }
        return true
    }

    /// Returns a text that two names share if they mean the same.
    private func key(_ name: String) -> String {
        if let option = command[name] { return option.name }
        guard let row = table[name] else { return name }
        if case .same(let words, _) = row.meaning, let option = command[words] { return option.name }
        return row.names[0]
    }
}
