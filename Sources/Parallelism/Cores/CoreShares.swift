/// The cores of each rank of a process.
package enum CoreShares: Equatable, Sendable {
    /// The system chooses.
    case free(Reason)
    /// Each rank's threads stay on its own cores.
    case bound([Share])

    /// Why the system chooses.
    package enum Reason: Equatable, Sendable {
        case off
        case unknownNodes
        case oneNode
        /// The processes of a job may use only a part of the host, but the same or different ones.
        case divided(processes: Int)
        case fewCores(ranks: Int, threads: Int, cores: Int, nodes: Int)

        /// True if there would be something to gain.
        package var matters: Bool {
            switch self {
            case .off, .unknownNodes, .oneNode: false
            case .divided, .fewCores: true
            }
        }

        fileprivate var text: String {
            switch self {
            case .off: "--numa off"
            case .unknownNodes: "the system does not tell its memory nodes"
            case .oneNode: "one memory node"
            case .divided(let processes):
                "\(processes) processes may use a part of this host; bind each to a socket, or none"
            case .fewCores(let ranks, let threads, let cores, let nodes):
                "\(ranks) \(ranks == 1 ? "rank" : "ranks") of \(threads) threads have too few of the \(cores) cores on "
                    + "\(nodes) memory nodes"
            }
        }
    }

    /// The cores of one rank.
    package struct Share: Equatable, Sendable {
        /// The memory nodes of the cores.
        package let nodes: [Int]
        /// One logical processor of each core, so that no two threads share a core.
        package let processors: [Int]

        package init(nodes: [Int], processors: [Int]) {
            self.nodes = nodes
            self.processors = processors
        }
    }

    /// Divides the cores of each memory node between the ranks on it. Neighbouring ranks are on one node, and a rank is on
    /// several nodes only if there are fewer ranks than nodes.
    ///
    /// On a host with one memory node no core is nearer to a rank's memory than another, so the system chooses; as it does
    /// where a rank has more threads than cores, because a bound thread cannot give way.
    ///
    /// - Parameters:
    ///   - ranks: The ranks of this process, at least one.
    ///   - threads: The threads of each rank.
    ///   - place: The number of this process among those of its job on this host, which have as many ranks and threads
    ///     each.
    ///   - places: The number of those processes, which divide the cores between them. Where they may use only a part of the
    ///     host, as a launcher or a container decides, a process does not know whether the others may use the same, and
    ///     the system chooses.
    package init(ranks: Int, threads: Int, place: Int = 0, of places: Int = 1, on topology: CoreTopology?) {
        guard let topology else {
            self = .free(.unknownNodes)
            return
        }
        guard topology.nodes.count > 1 else {
            self = .free(.oneNode)
            return
        }
        guard places == 1 || topology.isWhole else {
            self = .free(.divided(processes: places))
            return
        }
        let all = Self.shares(of: topology.nodes, ranks * places)
        guard all.allSatisfy({ $0.processors.count >= threads }) else {
            let cores = topology.nodes.reduce(0) { $0 + $1.cores.count }
            self = .free(
                .fewCores(ranks: ranks * places, threads: threads, cores: cores, nodes: topology.nodes.count))
            return
        }
        self = .bound(Array(all[place * ranks..<(place + 1) * ranks]))
    }

    private static func shares(of nodes: [CoreTopology.Node], _ ranks: Int) -> [Share] {
        guard ranks >= nodes.count else {
            return (0..<ranks).map { rank in
                let own = nodes[nodes.count * rank / ranks..<nodes.count * (rank + 1) / ranks]
                return Share(nodes: own.map(\.number), processors: own.flatMap { $0.cores.map { $0[0] } })
            }
        }
        return nodes.enumerated().flatMap { index, node in
            let count = ranks * (index + 1) / nodes.count - ranks * index / nodes.count
            return (0..<count).map { rank in
                let own = node.cores[node.cores.count * rank / count..<node.cores.count * (rank + 1) / count]
                return Share(nodes: [node.number], processors: own.map { $0[0] })
            }
        }
    }

    /// The memory nodes of all ranks together, by number.
    package var nodes: [Int] {
        guard case .bound(let shares) = self else { return [] }
        return Set(shares.flatMap(\.nodes)).sorted()
    }

    /// True if the host has several memory nodes, and something to gain or to lose.
    package var matters: Bool {
        guard case .free(let reason) = self else { return true }
        return reason.matters
    }

    /// A line for people: where which ranks run.
    package var text: String {
        switch self {
        case .free(let reason): return "chosen by the system (\(reason.text))"
        case .bound(let shares):
            let parts = nodes.map { node in
                let ranks = shares.indices.filter { shares[$0].nodes.contains(node) }
                let names = ranks.count == 1 ? "rank \(ranks[0])" : "ranks \(ranks[0]) to \(ranks[ranks.count - 1])"
                return "\(names) on memory node \(node)"
            }
            return parts.joined(separator: ", ") + ", a core for each thread"
        }
    }
}
