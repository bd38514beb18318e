import Foundation
import Inference
package import Modeling
package import Parallelism
import Synchronization
package import Tensors

/// A model that wraps another one and fails on one rank, at one point, in one way.
package final class FailingModel: ModelWrapper {
    /// The points at which the model can fail.
    package enum Phase: String, CaseIterable, Codable, Sendable {
        /// The rank is being set up.
        case building
        /// The first step begins; no layer has run.
        case prefill
        /// The first step ends; the last layer has run.
        case layers
        /// The second step begins. If prompts fit into one step, it computes their first generated tokens.
        case decode
        case logits
    }

    /// The ways in which the model can fail.
    package enum Kind: String, Sendable {
        /// The rank throws a `GroupFailure`.
        case failure
        /// A precondition fails on the rank's thread.
        case trap
        /// A precondition fails on a thread that helps the rank.
        case trapOfHelper
        /// The rank reads memory that is not mapped.
        case wildPointer
        /// The rank's thread never returns.
        case hang
    }

    package let model: any Model
    private let rank: Int
    private let phase: Phase
    private let kind: Kind
    /// The number of failures that are left.
    private let faults: Mutex<Int>
    /// The number of steps that the rank has begun.
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
        // Ranks and other threads read this property, so the rank is recognized by its thread's name.
        if phase == .building, ThreadName.current == "braid rank \(rank)" {
            do { try goWrong(on: rank, at: .building, .best) } catch { preconditionFailure("\(error)") }
        }
        return model.vocabularySize
    }

    package func forward(_ step: Step, _ seat: Seat, into hidden: View) throws(GroupFailure) {
        if seat.rank == rank { steps.withLock { $0 += 1 } }
        let number = steps.withLock { $0 }
        try goWrong(on: seat.rank, at: number == 1 ? .prefill : .decode, seat.kernels)
        try model.forward(step, seat, into: hidden)
        try goWrong(on: seat.rank, at: .layers, seat.kernels)
    }

    package func logits(_ hidden: View, vocabulary: Range<Int>, _ seat: Seat, into logits: View) {
        // `logits` cannot throw.
        do { try goWrong(on: seat.rank, at: .logits, seat.kernels) } catch { preconditionFailure("\(error)") }
        model.logits(hidden, vocabulary: vocabulary, seat, into: logits)
    }

    package func draftLogits(_ states: View, vocabulary: Range<Int>, _ seat: Seat, into logits: View) {
        // `logits` cannot throw.
        do { try goWrong(on: seat.rank, at: .logits, seat.kernels) } catch { preconditionFailure("\(error)") }
        model.draftLogits(states, vocabulary: vocabulary, seat, into: logits)
    }

    /// Work that fails on a helper's thread alone. It is slow, so that the helper receives a part of it.
    private struct Trap: ParallelWork {
        func compute(_: Range<Int>, _: Kernels, _: Scratch) {
            precondition(!ThreadName.current.contains("."), FailingModel.reason)
            Thread.sleep(forTimeInterval: 1)
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
