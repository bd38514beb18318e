import ArgumentParser
import Foundation

/// These options determine how ranks are divided among the processes that `mpirun` starts.
package struct ProcessOptions: ParsableArguments, Sendable {
    @Option(
        help: "Ranks of each process, to be sure; they are always the layout's ranks divided by the processes.",
        transform: Parsing.count(1...Parsing.maxRanks))
    var ranksPerProcess: Int?

    @Flag(
        help: """
            Let processors with different instruction sets work together, all at the best level they have in common.
            """)
    var allowMixedIsa = false

    @Option(
        help: "Accepted for users of other engines: prints the command with mpirun to use.",
        transform: Parsing.count(1...4096))
    var nnodes: Int?

    @Option(help: "See --nnodes.", transform: Parsing.count(0...4095))
    var nodeRank: Int?

    @Option(name: [.customLong("dist-init-addr"), .customLong("nccl-init-addr")], help: "See --nnodes.")
    var distInitAddr: String?

    package init() {}

    /// Returns the command to run on the first host in place of this one, if options were given that start processes of
    /// several hosts in other engines; `nil` if none was. A shell can run it as it is: where the options do not name the
    /// other hosts, it asks for them.
    ///
    /// - Parameters:
    ///   - arguments: The arguments of this command, with the names of options in full.
    ///   - program: The path of this program.
    ///   - isRoot: True if mpirun must be told to run as root.
    /// - Throws: `CommandError` if the node's number is not below the number of nodes.
    package func mpirunLine(_ arguments: [String], program: String, isRoot: Bool) throws -> String? {
        let count = nnodes ?? 1
        guard nodeRank ?? 0 < count else {
            throw CommandError(
                "--node-rank: \(nodeRank ?? 0) is not below the number of nodes, --nnodes \(count); legal: 0"
                    + (count > 1 ? " to \(count - 1)" : ""))
        }
        guard count > 1 else { return nil }
        let words = [Self.shellWord(program)] + kept(of: arguments)
        guard let host = firstHost, !Self.isThisMachine(host) else {
            return Self.mpirun(count, ["--oversubscribe"], words, isRoot: isRoot)
        }
        let others = "Names of the other \(count - 1) hosts, separated by commas"
        return Self.asking(count == 2 ? "Name of the other host" : others)
            + Self.mpirun(count, ["--host", "\(Self.shellWord(host)),\"$hosts\""], words, isRoot: isRoot)
    }

    /// Returns a command as a shell runs it, on as many hosts, whose names it asks for if they are several.
    ///
    /// - Parameter isRoot: True if mpirun must be told to run as root.
    package static func line(_ command: [String], hosts: Int, isRoot: Bool) -> String {
        let words = command.map(shellWord)
        guard hosts > 1 else { return words.joined(separator: " ") }
        return asking("Names of the \(hosts) hosts, separated by commas")
            + mpirun(hosts, ["--host", "\"$hosts\""], words, isRoot: isRoot)
    }

    private static func asking(_ question: String) -> String { "printf '\(question): '; read -r hosts; " }

    private static func mpirun(_ count: Int, _ options: [String], _ words: [String], isRoot: Bool) -> String {
        let root = isRoot ? ["--allow-run-as-root"] : []
        let all = ["mpirun", "-np", "\(count)"] + root + options + ["--bind-to", "none"] + words
        return all.joined(separator: " ")
    }

    /// The host of `--dist-init-addr`, without its port; an IPv6 address has brackets there and nowhere else.
    private var firstHost: String? {
        guard let distInitAddr else { return nil }
        let address = distInitAddr.split(separator: "/").last.map(String.init) ?? distInitAddr
        if address.hasPrefix("[") { return address.dropFirst().split(separator: "]").first.map(String.init) }
        let parts = address.split(separator: ":", omittingEmptySubsequences: false)
        return parts.count == 2 ? String(parts[0]) : address
    }

    /// Returns whether nodes at this address are processes of one machine.
    private static func isThisMachine(_ host: String) -> Bool {
        host == "localhost" || host.hasPrefix("127.") || host == "::1"
    }

    /// Returns the words of the command that all processes are started with.
    private func kept(of arguments: [String]) -> [String] {
        var (kept, keys) = ([String](), 0)
        var rest = arguments[...]
        while let argument = rest.popFirst() {
            let name = CommandOptions.dashed(argument.split(separator: "=").first.map(String.init) ?? "")
            if ["--nnodes", "--node-rank", "--dist-init-addr", "--nccl-init-addr"].contains(name) {
                if !argument.contains("=") { rest = rest.dropFirst() }
            } else if name == "--api-key" {
                // A printed command line ends up in logs, so it must not contain the keys.
                let values = argument.contains("=") ? 0 : rest.prefix { !OptionReader.isOption($0) }.count
                rest = rest.dropFirst(values)
                let count = max(values, 1)
                kept += ["--api-key"] + (keys + 1...keys + count).map { "\"$\(Self.keyVariable($0))\"" }
                keys += count
            } else {
                kept.append(Self.shellWord(argument))
            }
        }
        return kept
    }

    /// Returns the name of the variable that holds an API key: the first, the second and so on.
    private static func keyVariable(_ number: Int) -> String { "BRAID_API_KEY" + (number > 1 ? "_\(number)" : "") }

    /// Returns a word as a shell reads it, in quotes if it has other characters than those of names and paths.
    private static func shellWord(_ word: String) -> String {
        let isPlain = word.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "-_./:=,+@%".contains($0)) }
        return isPlain && !word.isEmpty ? word : "'" + word.replacing("'", with: "'\\''") + "'"
    }

    /// Returns what is wrong with dividing `ranks` among `processes`; `nil` if nothing is.
    ///
    /// - Parameter option: The option that gives the number of processes.
    package func problem(ranks: Int, processes: Int, option: String = "mpirun -np") -> String? {
        guard ranks % processes == 0 else {
            let legal = (1...ranks).filter { ranks % $0 == 0 }.map(String.init).joined(separator: ", ")
            return "\(option): \(ranks) \(ranks == 1 ? "rank" : "ranks") cannot be divided evenly among \(processes) "
                + "processes; legal: \(legal)"
        }
        guard let ranksPerProcess, ranksPerProcess != ranks / processes else { return nil }
        return "--ranks-per-process: \(ranksPerProcess) in \(processes) processes are not the layout's \(ranks) ranks; "
            + "legal: \(ranks / processes)"
    }
}
