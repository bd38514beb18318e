import CAllocations
package import Modeling
package import Parallelism
import Synchronization
package import Tensors

/// A model that wraps another one and counts the heap allocations of its layers, step by step, on every rank's thread.
package final class CountingModel: ModelWrapper {
    package let model: any Model
    private let counts = Mutex<[Int: [UInt64]]>([:])

    package init(_ model: any Model) { self.model = model }

    /// The number of heap allocations in each step, by rank.
    package var allocations: [Int: [UInt64]] { counts.withLock { $0 } }

    package func forward(_ step: Step, _ seat: Seat, into hidden: View) throws(GroupFailure) {
        let before = braid_allocations()
        try model.forward(step, seat, into: hidden)
        let allocated = braid_allocations() - before
        counts.withLock { $0[seat.rank, default: []].append(allocated) }
    }
}
