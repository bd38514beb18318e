/// The cores of each rank of a process.
package enum CoreShares: Equatable, Sendable {
    /// The system chooses, because of what the text says.
    case free(because: String)
    /// Each rank's threads stay on its own cores.
    case bound([Share])

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

    /// Divides the cores of a process evenly between its ranks: neighbouring ranks are on one memory node, and a rank is on
    /// several nodes only if there are fewer ranks than nodes.
    ///
    /// On a host with one memory node no core is nearer to a rank's memory than another, so that its system is free to
    /// choose; so it is where threads outnumber cores, because a bound thread cannot give way.
    ///
    /// - Parameters:
    ///   - ranks: The ranks of this process, at least one.
    ///   - threads: The threads of each rank.
    ///   - place: The number of this process among those of its job on this host, which have as many ranks and threads
    ///     each.
    ///   - places: The number of those processes. They divide the cores between them, unless whoever started them did:
    ///     then a process may not use the whole host.
    package init(ranks: Int, threads: Int, place: Int = 0, of places: Int = 1, on topology: CoreTopology?) {
        guard let topology else {
            self = .free(because: "the system does not tell its memory nodes")
            return
        }
        guard topology.nodes.count > 1 else {
            self = .free(because: "one memory node")
            return
        }
        let (place, places) = topology.isWhole && (0..<places).contains(place) ? (place, places) : (0, 1)
        let all = Self.shares(of: topology.nodes, ranks * places)
        guard all.allSatisfy({ $0.processors.count >= threads }) else {
            let cores = topology.nodes.reduce(0) { $0 + $1.cores.count }
            self = .free(
                because: "\(ranks * places) ranks of \(threads) threads do not fit \(cores) cores on "
                    + "\(topology.nodes.count) memory nodes")
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

    /// A line for people: where which ranks run.
    package var text: String {
        switch self {
        case .free(let reason): return "chosen by the system (\(reason))"
        case .bound(let shares):
            let parts = nodes.map { node in
                let ranks = shares.indices.filter { shares[$0].nodes.contains(node) }
                let cores = ranks.reduce(0) { $0 + shares[$1].processors.count / shares[$1].nodes.count }
                let names = ranks.count == 1 ? "rank \(ranks[0])" : "ranks \(ranks[0]) to \(ranks[ranks.count - 1])"
                return "\(names) on \(cores) cores of memory node \(node)"
            }
            return parts.joined(separator: ", ")
        }
    }
}
