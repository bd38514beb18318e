import CKernels

/// Holds the matrices of a layer's routed experts, in the router's order, as one table that kernels read. It is
/// immutable, so ranks share it. The owner of the model keeps the matrices' memory alive.
@safe package final class ExpertWeights: @unchecked Sendable {
    package let count: Int
    /// The number of outputs of an expert.
    package let hidden: Int
    /// The inner width of an expert.
    package let width: Int
    let table: UnsafeMutablePointer<braid_expert>

    /// Creates the table.
    ///
    /// - Parameter experts: `gate` and `up` are `[width, hidden]` and `down` is `[hidden, width]`, equal for all
    ///   experts.
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
