import Dispatch
import Foundation
import Parallelism
import Synchronization
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(15))) struct `Processes of a job` {
    /// Creates processes that know each other's names.
    ///
    /// - Parameter patience: how long they wait for each other, in seconds: longer than a busy machine keeps a thread from
    ///   running.
    private static func processes(
        _ transports: [InMemoryTransport], pids: [Int32?]? = nil, patience: Double = 5
    ) -> [Processes] {
        let names = transports.indices.map { "process \($0) on host \($0)" }
        return transports.map { transport in
            let processes = Processes(transport, patience: patience)
            processes.know(names: names, pids: pids ?? transports.map { _ in nil })
            return processes
        }
    }

    /// Runs a collective of all ranks, one in each process, and returns the results with the seconds they took.
    private static func meet(_ processes: [Processes], without missing: Int) throws -> [(String, Double)] {
        let placement = Placement(ranks: processes.count, processes: processes.count)
        return try onEveryRank(of: processes.count) { rank in
            let began = Date()
            let world = ProcessWorld(processes[rank], placement, epoch: 1)
            let group = world.group(of: rank, among: Array(0..<processes.count), purpose: 0)
            if rank == missing { return ("", 0) }
            do {
                try group.run(.barrier)
                return ("met", Date().timeIntervalSince(began))
            } catch {
                return ("\(error)", Date().timeIntervalSince(began))
            }
        }
    }

    @Test func `that are silent are lost, and waiting ranks name them`() throws {
        let transports = InMemoryTransport.network(3)
        defer { for transport in transports { transport.leave() } }
        let processes = Self.processes(transports)
        transports[1].cut()
        let found = try Self.meet(processes, without: 1)
        for rank in [0, 2] {
            #expect(
                found[rank].0
                    == "rank 1 failed: process 1 on host 1 has not been heard from for 5 s (--watchdog-timeout)")
            #expect(found[rank].1 < 300)
        }
        #expect(processes[0].failure?.rank == 1)
    }

    @Test func `that are silent when the job is being ended are the reason`() throws {
        let transports = InMemoryTransport.network(2)
        defer { for transport in transports { transport.leave() } }
        let processes = transports.map { Processes($0) }
        transports[1].cut()
        // A suspicion lasts a second, which a slow machine may sleep through.
        let isOver = Atomic(false)
        Thread.detachNewThread {
            while !isOver.load(ordering: .relaxed) {
                processes[0].suspect()
                Thread.sleep(forTimeInterval: 0.05)
            }
        }
        let found = try Self.meet(processes, without: 1)
        isOver.store(true, ordering: .relaxed)
        #expect(found[0].0 == "rank 1 failed: process 1 has not been heard from for 0.8 s while the job is being ended")
    }

    @Test func `that are silent while the job is being ended, but live on this host, are not lost`() throws {
        let transports = InMemoryTransport.network(2)
        defer { for transport in transports { transport.leave() } }
        let processes = transports.map { Processes($0) }
        processes[0].know(names: ["process 0", "process 1"], pids: [nil, ProcessInfo.processInfo.processIdentifier])
        transports[1].cut()
        processes[0].suspect()
        Thread.sleep(forTimeInterval: 1.2)
        #expect(processes[0].failure == nil)
    }

    @Test func `leave together, with every message sent before and none after`() throws {
        let transports = InMemoryTransport.network(3)
        let processes = Self.processes(transports)
        let heard = Mutex<[UInt8]>([])
        processes[0].read(.order) { message, _ in heard.withLock { $0 += message.bodyCopy } }
        let left = Mutex<[Int]>([])
        let departures = DispatchGroup()
        for process in [0, 1] {
            departures.enter()
            Thread.detachNewThread {
                processes[process].leave()
                left.withLock { $0.append(process) }
                departures.leave()
            }
        }
        // The pause is longer than the patience with a silent process.
        #expect(departures.wait(timeout: .now() + 6) == .timedOut)
        #expect(left.withLock { $0 } == [] && processes.allSatisfy { $0.failure == nil })
        processes[2].sendToAll(Message(.order, body: [7]))
        processes[1].sendToAll(Message(.order, body: [8]))
        processes[2].leave()
        #expect(departures.wait(timeout: .now() + 60) == .success)
        #expect(heard.withLock { $0 } == [7])
    }

    /// Messages that arrive before a reader is set are read by a reader that may ask for anything and send anything.
    @Test func `let a reader ask about them and answer`() throws {
        let transports = InMemoryTransport.network(2)
        defer { for transport in transports { transport.leave() } }
        let processes = Self.processes(transports)
        let read = DispatchSemaphore(value: 0)
        for number in 0..<20 { processes[1].send(Message(.order, body: [UInt8(number)]), to: 0) }
        Thread.sleep(forTimeInterval: 0.1)
        let numbers = Mutex<[UInt8]>([])
        Thread.detachNewThread {
            processes[0].read(.order) { message, process in
                let isFine = processes[0].failure == nil && processes[0].heartbeat(of: process) == []
                processes[0].send(Message(.report, body: []), to: process)
                numbers.withLock { $0 += isFine ? message.bodyCopy : [] }
            }
            read.signal()
        }
        #expect(read.wait(timeout: .now() + 60) == .success)
        processes[1].send(Message(.order, body: [20]), to: 0)
        for _ in 0..<6000 where numbers.withLock({ $0.count }) < 21 { Thread.sleep(forTimeInterval: 0.01) }
        #expect(numbers.withLock { $0 } == Array(0...20))
    }

    @Test func `that only compute are not lost`() throws {
        let transports = InMemoryTransport.network(2)
        defer { for transport in transports { transport.leave() } }
        let processes = Self.processes(transports)
        // The pause is longer than the patience with a silent process.
        Thread.sleep(forTimeInterval: 8)
        #expect(processes.allSatisfy { $0.failure == nil })
    }

    @Test func `whose pid is gone are lost at once`() throws {
        let gone = Process()
        gone.executableURL = URL(fileURLWithPath: "/bin/true")
        try gone.run()
        gone.waitUntilExit()
        let transports = InMemoryTransport.network(2)
        defer { for transport in transports { transport.leave() } }
        let processes = Self.processes(transports, pids: [nil, gone.processIdentifier], patience: 600)
        let found = try Self.meet(processes, without: 1)
        #expect(found[0].0 == "rank 1 failed: process 1 on host 1 has ended (it was pid \(gone.processIdentifier))")
        // Less than the patience.
        #expect(found[0].1 < 300)
    }

    @Test func `have every rank once, and nearly equally many ranks`() {
        for ranks in 1...20 {
            for processes in 1...8 {
                let placement = Placement(ranks: ranks, processes: processes)
                let runs = (0..<processes).map { placement.ranks(of: $0) }
                #expect(runs.flatMap { Array($0) } == Array(0..<ranks))
                for rank in 0..<ranks { #expect(runs[placement.process(of: rank)].contains(rank)) }
                #expect(runs.map(\.count).max()! - runs.map(\.count).min()! <= 1)
                #expect(!runs[0].isEmpty)
            }
        }
    }
}
