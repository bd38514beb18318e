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
        help: "Accepted for users of other engines: prints the mpirun line to use.", transform: Parsing.count(1...4096))
    var nnodes: Int?

    @Option(help: "See --nnodes.", transform: Parsing.count(0...4095))
    var nodeRank: Int?

    @Option(name: [.customLong("dist-init-addr"), .customLong("nccl-init-addr")], help: "See --nnodes.")
    var distInitAddr: String?

    package init() {}

    /// Returns the `mpirun` command line to use if options were given that start processes in other engines; `nil` if
    /// none was.
    ///
    /// - Parameter arguments: The arguments of this command.
    package func mpirunLine(_ arguments: [String]) -> String? {
        guard nnodes ?? 1 > 1 || nodeRank ?? 0 > 0 || distInitAddr != nil else { return nil }
        let count = max(nnodes ?? 2, (nodeRank ?? 0) + 1, 1)
        let address = distInitAddr.map { String($0.split(separator: ":").first ?? "") } ?? "HOST0"
        let hosts = (0..<count).map { "\($0 == 0 ? address : "HOST\($0)"):1" }.joined(separator: ",")
        var kept: [String] = []
        var rest = arguments[...]
        while let argument = rest.popFirst() {
            let name = argument.split(separator: "=").first.map(String.init) ?? ""
            if ["--nnodes", "--node-rank", "--dist-init-addr", "--nccl-init-addr"].contains(name) {
                if !argument.contains("=") { rest = rest.dropFirst() }
            } else if name == "--api-key" {
                // A printed command line ends up in logs, so it must not contain the key.
                if !argument.contains("=") { rest = rest.dropFirst() }
                kept += ["--api-key", "\"$BRAID_API_KEY\""]
            } else {
                kept.append(argument.contains(" ") ? "'\(argument)'" : argument)
            }
        }
        return "mpirun -np \(count) --host \(hosts) --bind-to none braid "
            + kept.joined(separator: " ")
    }

    /// Returns what is wrong with dividing `ranks` among `processes`; `nil` if nothing is.
    package func problem(ranks: Int, processes: Int) -> String? {
        guard ranks % processes == 0 else {
            let legal = (1...ranks).filter { ranks % $0 == 0 }.map(String.init).joined(separator: ", ")
            return "mpirun -np: \(ranks) ranks cannot be divided evenly among \(processes) processes; legal: \(legal)"
        }
        guard let ranksPerProcess, ranksPerProcess != ranks / processes else { return nil }
        return "--ranks-per-process: \(ranksPerProcess) in \(processes) processes are not the layout's \(ranks) ranks; "
            + "legal: \(ranks / processes)"
    }
}
