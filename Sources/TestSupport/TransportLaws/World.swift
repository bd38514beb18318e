import Parallelism

/// A way to run a law on every rank of a job: a transport, and the way in which it waits.
package struct World: Sendable {
    package let name: String
    /// The largest number of processes; each has a memory of its own.
    package let processes: Int
    /// Runs a law on each of `ranks` ranks, with a new transport.
    package let run: @Sendable (_ ranks: Int, _ law: @escaping TransportLaws.Law) throws -> [String]

    package init(
        _ name: String, processes: Int = 1,
        run: @escaping @Sendable (Int, @escaping TransportLaws.Law) throws -> [String]
    ) {
        self.name = name
        self.processes = processes
        self.run = run
    }

    /// Returns a world whose ranks are threads of this process.
    ///
    /// - Parameter cores: the number of cores that the transport assumes.
    package static func threads(_ name: String, cores: Int) -> World {
        World(name) { ranks, law in
            try TransportLaws.run(law, on: 0..<ranks, of: ranks, ThreadWorld(threads: ranks, cores: cores))
        }
    }

    /// Returns a world of simulated processes: the ranks of each have a memory of their own, and messages are passed
    /// within this process.
    package static func processes(_ count: Int) -> World {
        World("\(count) processes", processes: count) { ranks, law in
            let placement = Placement(ranks: ranks, processes: count)
            let transports = InMemoryTransport.network(count)
            defer { for transport in transports { transport.leave() } }
            return try onEveryRank(of: count) { process in
                let processes = Processes(transports[process])
                let world = ProcessWorld(processes, placement, epoch: 1)
                return try TransportLaws.run(law, on: placement.ranks(of: process), of: ranks, world)
            }.flatMap { $0 }
        }
    }

    /// All worlds that need no other programs.
    package static let all = [
        threads("threads that spin", cores: 64), threads("threads that sleep", cores: 0), processes(2), processes(5),
    ]
    /// The worlds whose ranks share memory.
    package static let inMemory = Array(all[..<2])
}
