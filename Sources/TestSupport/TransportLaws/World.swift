import Parallelism

/// A way to run a law on every rank of a job. One for each transport, and for each way in which it waits.
package struct World: Sendable {
    package let name: String
    /// At most; each has a memory of its own.
    package let processes: Int
    /// Runs a law on every one of so many ranks, with a new transport.
    package let run: @Sendable (_ ranks: Int, _ law: @escaping TransportLaws.Law) throws -> [String]

    package init(
        _ name: String, processes: Int = 1,
        run: @escaping @Sendable (Int, @escaping TransportLaws.Law) throws -> [String]
    ) {
        self.name = name
        self.processes = processes
        self.run = run
    }

    /// Threads of this process.
    ///
    /// - Parameter cores: as many as the transport is told there are.
    package static func threads(_ name: String, cores: Int) -> World {
        World(name) { ranks, law in
            try TransportLaws.run(law, on: 0..<ranks, of: ranks, ThreadWorld(threads: ranks, cores: cores))
        }
    }

    /// Processes that are none: each has a memory of its own for its ranks, and messages are handed over in this one.
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

    /// All there are without other programs.
    package static let all = [
        threads("threads that spin", cores: 64), threads("threads that sleep", cores: 0), processes(2), processes(5),
    ]
    /// Those whose ranks have memory in common.
    package static let inMemory = Array(all[..<2])
}
