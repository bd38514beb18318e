import Dispatch
import Foundation
package import Inference
package import Modeling
package import Parallelism
package import Synchronization

/// An engine whose ranks are divided among processes, which are simulated in this one.
package final class ProcessEngine: Sendable {
    package let engine: Engine
    package let transports: [InMemoryTransport]
    /// The processes as the first one sees them; `nil` if there is one.
    package let processes: Processes?
    /// Why each of the other processes has ended; empty if the first one dismissed it.
    package let ends = Mutex([String]())
    private let followers = DispatchGroup()

    /// - Parameter patience: the seconds after which a silent process is lost.
    package init(_ model: any Model, _ settings: EngineConfiguration, patience: Double = 30) {
        let transports = InMemoryTransport.network(settings.processes)
        self.transports = transports
        processes = settings.processes > 1 ? Processes(transports[0], patience: patience) : nil
        engine = Engine(model, settings, processes: processes)
        for process in 1..<max(settings.processes, 1) {
            followers.enter()
            Thread.detachNewThread { [self] in
                var end = ""
                do {
                    try RankFollower(model, Processes(transports[process], patience: patience)).run()
                } catch { end = "\(error)" }
                ends.withLock { $0.append(end) }
                followers.leave()
            }
        }
    }

    package func stop() {
        engine.stop("the test is over")
        if let processes { RankFollower.dismiss(processes) }
        followers.wait()
        for transport in transports { transport.leave() }
    }
}
