import CThreads
import Foundation
package import Parallelism

/// Says whether ranks stay on the cores of one memory node each.
package enum CorePolicy: String, Sendable, CaseIterable, Equatable {
    /// Where the host has several memory nodes, and a core for each thread.
    case auto
    /// The system moves threads as it likes.
    case off

    /// Returns the cores of each rank of this process.
    package func shares(ranks: Int, threads: Int) -> CoreShares {
        guard self == .auto else { return .free(.off) }
        let (place, places) = Self.placeOnHost(ProcessInfo.processInfo.environment)
        return CoreShares(ranks: ranks, threads: threads, place: place, of: places, on: Self.topology)
    }

    /// Divides the pages that `read` is the first to read, those of files with weights, evenly between the memory nodes.
    package func spreadingFiles<Failure>(_ read: () throws(Failure) -> Void) throws(Failure) {
        let nodes = self == .auto ? Self.topology?.nodes.map(\.number) ?? [] : []
        guard nodes.count > 1 else { return try read() }
        Self.takeMemory(from: nodes)
        defer { Self.takeMemory(from: []) }
        try read()
    }

    /// Takes the calling thread's new pages from these memory nodes in turn, or, without any, from its own node; unless the
    /// process was started with another choice, as by numactl.
    package static func takeMemory(from nodes: [Int]) {
        if hasForeignChoice { return }
        _ = unsafe braid_take_memory_from(nodes.map { Int32($0) }, Int32(nodes.count))
    }

    /// Is first asked before this process chooses for any thread.
    private static let hasForeignChoice = braid_has_memory_policy()

    private static var topology: CoreTopology? { CoreTopology(allowed: allowedProcessors) }

    /// The logical processors that the calling thread may use, or none if the system does not say.
    package static var allowedProcessors: [Int] {
        let most = 1 << 16
        let allowed = unsafe [Int32](unsafeUninitializedCapacity: most) { processors, count in
            count = unsafe Int(braid_allowed_processors(processors.baseAddress, Int32(most)))
        }
        return allowed.map { Int($0) }
    }

    /// Returns the number of this process among those of its job on this host, and how many there are, as Open MPI or MPICH
    /// tell in the environment.
    package static func placeOnHost(_ environment: [String: String]) -> (Int, Int) {
        let names = [
            ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"), ("MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
        ]
        for (rank, size) in names {
            if let place = environment[rank].flatMap({ Int($0) }), let places = environment[size].flatMap({ Int($0) }),
                0 <= place, place < places
            {
                return (place, places)
            }
        }
        return (0, 1)
    }
}

extension CoreShares {
    /// Limits the calling thread to the cores of a rank, the first of this process being 0, and takes its memory from
    /// their nodes. If the system refuses, the thread runs anywhere.
    package func bindThread(of rank: Int) {
        guard case .bound(let shares) = self else { return }
        let processors = shares[rank].processors.map { Int32($0) }
        _ = unsafe braid_bind_thread(processors, Int32(processors.count))
        CorePolicy.takeMemory(from: shares[rank].nodes.count > 1 ? shares[rank].nodes : [])
    }
}
