import Foundation
import Inference
package import KVCache
package import Modeling
package import Parallelism
import Synchronization
package import Tensors

/// A model that goes wrong on one rank, at one point, in one way; otherwise it is the model it wraps.
package final class FailingModel: Model {
    /// When.
    package enum Phase: String, CaseIterable, Codable, Sendable {
        /// While the rank is set up.
        case building
        /// The first step, before any layer.
        case prefill
        /// The first step, after the last layer.
        case layers
        /// The second step: where prompts fit into one, their first generated token.
        case decode
        case logits
    }

    /// How.
    package enum Kind: String, Sendable {
        /// A `GroupFailure` is thrown.
        case failure
        /// A precondition does not hold.
        case trap
        /// A precondition does not hold in a thread that helps the rank.
        case trapOfHelper
        /// Memory that is not there is read.
        case wildPointer
        /// The thread never comes back.
        case hang
    }

    private let model: any Model
    private let rank: Int
    private let phase: Phase
    private let kind: Kind
    /// How often it still goes wrong.
    private let faults: Mutex<Int>
    /// Begun by the rank.
    private let steps = Mutex(0)

    package init(_ model: any Model, rank: Int, _ phase: Phase, _ kind: Kind, times: Int = 1) {
        self.model = model
        self.rank = rank
        self.phase = phase
        self.kind = kind
        faults = Mutex(times)
    }

    package static let reason = "made to fail"

    package var vocabularySize: Int {
        // Asked by ranks while they are set up, and by others; threads of ranks are named after them.
        if phase == .building, ThreadName.current == "braid rank \(rank)" {
            do { try goWrong(on: rank, at: .building, .best) } catch { preconditionFailure("\(error)") }
        }
        return model.vocabularySize
    }

    package var description: ModelDescription { model.description }

    package func cacheFormat(_ type: CacheType, pageSize: Int) -> CacheFormat {
        model.cacheFormat(type, pageSize: pageSize)
    }

    package func forward(_ step: Step, _ seat: Seat, into hidden: View) throws(GroupFailure) {
        if seat.rank == rank { steps.withLock { $0 += 1 } }
        let number = steps.withLock { $0 }
        try goWrong(on: seat.rank, at: number == 1 ? .prefill : .decode, seat.kernels)
        try model.forward(step, seat, into: hidden)
        try goWrong(on: seat.rank, at: .layers, seat.kernels)
    }

    package func logits(_ hidden: View, vocabulary: Range<Int>, _ seat: Seat, into logits: View) {
        // Logits cannot throw.
        do { try goWrong(on: seat.rank, at: .logits, seat.kernels) } catch { preconditionFailure("\(error)") }
        model.logits(hidden, vocabulary: vocabulary, seat, into: logits)
    }

    /// What goes wrong for a helper alone. Slow, so that it gets something to do.
    private struct Trap: ParallelWork {
        func compute(_: Range<Int>, _: Kernels, _: Scratch) {
            precondition(!ThreadName.current.contains("."), FailingModel.reason)
            Thread.sleep(forTimeInterval: 0.05)
        }
    }

    private func goWrong(on rank: Int, at phase: Phase, _ kernels: Kernels) throws(GroupFailure) {
        guard rank == self.rank, phase == self.phase else { return }
        let isDue = faults.withLock { left in
            left -= 1
            return left >= 0
        }
        guard isDue else { return }
        switch kind {
        case .failure: throw GroupFailure(rank: rank, reason: Self.reason)
        case .trap: preconditionFailure(Self.reason)
        case .trapOfHelper: _ = kernels.share(Trap(), WorkSplit(units: 8), cost: .max)
        case .wildPointer: unsafe UnsafeMutablePointer<Int>(bitPattern: 16)!.pointee = 1
        case .hang: while true { Thread.sleep(forTimeInterval: 1) }
        }
    }
}
