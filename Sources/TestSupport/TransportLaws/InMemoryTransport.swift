import Dispatch
import Foundation
package import Parallelism
import Synchronization

/// A transport of messages between threads of one process. It can lose or damage messages, as a network can.
package final class InMemoryTransport: MessageTransport {
    package let process: Int
    package var processes: Int { network.withLock { $0.count } }
    package var processesHere: Int { processes }
    private let inbox = Mutex<[(message: Message, process: Int)]>([])
    private let wake = DispatchSemaphore(value: 0)
    private let network = Mutex<[InMemoryTransport]>([])
    private let isOver = Atomic(false)
    private let isCut = Atomic(false)
    private let damage = Mutex<(@Sendable (Message) -> Message)?>(nil)

    private init(_ process: Int) { self.process = process }

    /// Returns transports that are connected to each other, one for each of `count` processes.
    package static func network(_ count: Int) -> [InMemoryTransport] {
        let transports = (0..<count).map { InMemoryTransport($0) }
        for transport in transports { transport.network.withLock { $0 = transports } }
        return transports
    }

    package func start(
        receive: @escaping @Sendable (Message, Int) -> Void, look: @escaping @Sendable () -> Void,
        lose: @escaping @Sendable (String) -> Void
    ) {
        Thread.detachNewThread { [self] in
            var arrived: [(message: Message, process: Int)] = []
            while !isOver.load(ordering: .acquiring) {
                _ = wake.wait(timeout: .now() + 0.02)
                // The two arrays are swapped, so that sending allocates nothing once they have grown.
                inbox.withLock { swap(&$0, &arrived) }
                for (message, process) in arrived { receive(message, process) }
                arrived.removeAll(keepingCapacity: true)
                look()
            }
        }
    }

    package func send(_ message: Message, to process: Int) {
        if isCut.load(ordering: .acquiring) { return }
        // A late heartbeat may find that its receiver has left.
        guard let other = network.withLock({ $0.isEmpty ? nil : $0[process] }) else { return }
        let message = damage.withLock { $0 }?(message) ?? message
        other.inbox.withLock { $0.append((message, self.process)) }
        other.wake.signal()
    }

    /// Discards everything that this process sends from now on.
    package func cut() { isCut.store(true, ordering: .releasing) }

    /// Replaces every message that this process sends from now on by the result of `damage`.
    package func damage(_ damage: @escaping @Sendable (Message) -> Message) { self.damage.withLock { $0 = damage } }

    package func setPolls(_ polls: Bool) {}
    package func beginWait() {}
    package func endWait() {}

    package func leave() {
        isOver.store(true, ordering: .releasing)
        wake.signal()
        network.withLock { $0 = [] }
    }

    package func endJob(status: Int32) { leave() }
}
