import Modeling
package import Parallelism
import Tensors

/// A collective of a layout: who takes part, and what a row of it is.
package struct Transfer: Sendable {
    package enum Kind: String, Sendable {
        case allGather = "all-gather"
        /// Addends travel to the rows' owners, who add them.
        case reduceScatter = "reduce-scatter"
        case allToAll = "all-to-all"
        /// Written by one rank and read by others; only a barrier travels.
        case sharedMemory = "shared memory"
        case send = "send"
    }

    /// What must be so for it to cost anything.
    package enum Condition: Sendable, Equatable {
        case always
        /// Some row stands at this position or behind it.
        case positionsFrom(Int)
        /// Rows whose queries go to the keys.
        case dcpRows
        /// The same, where one of them stands at this position or behind it.
        case dcpRowsFrom(Int)
        /// Keys that visit.
        case gatheredKeys
        /// Rows travel only to the experts they chose.
        case chosenExperts
        /// Rows whose logits are needed.
        case outputs
    }

    /// Which rows a rank gets.
    enum Flow: Sendable {
        case edge(Edge)
        case dispatch, expertTensorSums, combine
        case stageInput, outputs, logits
        case dcpRows(DCPExchange)
        case gatheredKeys
    }

    /// What goes between the rows and the owners of keys.
    enum DCPExchange: Sendable {
        case indexQueries, candidates, partialAttention
        /// And, of rows that select, so many positions.
        case queries(topK: Int?)
    }

    /// As meters, traces and reports call it.
    package let name: String
    package let kind: Kind
    /// The members of a group differ along these.
    package let axes: Axes
    /// The size of a group.
    package let ranks: Int
    /// Elements of a row.
    package let columns: Int
    package let bytesPerRow: Int
    package let condition: Condition
    let flow: Flow

    init(
        _ edge: Edge, _ kind: Kind, columns: Int, bytesPerRow: Int? = nil, ranks: Int, condition: Condition = .always
    ) {
        self.init(
            "\(edge.name)", kind, .edge(edge), along: edge.axes, columns: columns, bytesPerRow: bytesPerRow,
            ranks: ranks, condition: condition)
    }

    init(
        _ name: String, _ kind: Kind, _ flow: Flow, along axes: Axes, columns: Int, bytesPerRow: Int? = nil,
        ranks: Int, condition: Condition = .always
    ) {
        self.name = name
        self.kind = kind
        self.flow = flow
        self.axes = axes
        self.columns = columns
        // Activations travel as they are computed, in F32.
        self.bytesPerRow = bytesPerRow ?? columns * DType.f32.bytes
        self.ranks = ranks
        self.condition = condition
    }

    /// Positions that travel with a row where it selects.
    package var selectedColumns: Int? {
        if case .dcpRows(.queries(let topK)) = flow { topK } else { nil }
    }

    /// What its bytes are counted for.
    package enum Unit: Sendable {
        case token
        /// A row whose logits are needed.
        case output
        /// A row whose query goes to the keys.
        case dcpRow
        /// A key that earlier steps have stored.
        case gatheredKey
    }

    package var unit: Unit {
        switch condition {
        case .outputs: .output
        case .dcpRows, .dcpRowsFrom: .dcpRow
        case .gatheredKeys: .gatheredKey
        case .always, .positionsFrom, .chosenExperts: .token
        }
    }

    /// Whether its bytes are what is expected, and not what must be.
    package var isExpected: Bool { condition == .chosenExperts }
}
