import CKernels

/// The matrices of a layer's routed experts in the order of the router, as one table that kernels read. Immutable, so
/// ranks share it. The matrices' memory is kept alive by whoever holds the model.
@safe package final class ExpertWeights: @unchecked Sendable {
    package let count: Int
    /// Outputs of an expert.
    package let hidden: Int
    /// What an expert is wide inside.
    package let width: Int
    let table: UnsafeMutablePointer<braid_expert>

    /// - Parameter experts: `gate` and `up` are `[width, hidden]`, `down` is `[hidden, width]`, alike for all.
    package init(_ experts: [(gate: Weight, up: Weight, down: Weight)]) {
        guard let first = experts.first else { preconditionFailure("a layer of no experts") }
        (count, hidden, width) = (experts.count, first.down.rows, first.down.columns)
        unsafe table = .allocate(capacity: experts.count)
        for (number, expert) in experts.enumerated() {
            let isAlike = [expert.gate, expert.up].allSatisfy { $0.rows == width && $0.columns == hidden }
            precondition(
                isAlike && expert.down.rows == hidden && expert.down.columns == width, "expert \(number)'s shapes")
            let value = unsafe braid_expert(
                gate: expert.gate.kernelValue, up: expert.up.kernelValue, down: expert.down.kernelValue)
            unsafe (table + number).initialize(to: value)
        }
    }

    deinit { unsafe table.deallocate() }
}
