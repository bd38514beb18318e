import Dispatch
package import Inference
package import Modeling
package import Parallelism
package import Tensors

/// A model that wraps another one and begins no step before it is let go. An engine then knows all requests of a test
/// before it computes the first, however slowly they come: so they surely compete for pages.
package final class HeldModel: ModelWrapper {
    package let model: any Model
    /// A gate that each step opens for the next one.
    private let gate = DispatchSemaphore(value: 0)

    package init(_ model: any Model) { self.model = model }

    /// Lets steps begin. It is called once.
    package func letGo() { gate.signal() }

    package func forward(_ step: Step, _ seat: Seat, into hidden: View) throws(GroupFailure) {
        gate.wait()
        gate.signal()
        try model.forward(step, seat, into: hidden)
    }

    /// Submits requests to an engine of this model, lets it go, and reads their events to the ends.
    @inline(never)
    package func answers(of engine: Engine, to requests: [GenerationRequest]) async throws -> [Answer] {
        let generations: [Generation]
        do {
            defer { letGo() }
            generations = try requests.map { try engine.submit($0) }
        }
        return await TestSupport.answers(generations)
    }
}
