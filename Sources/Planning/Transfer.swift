import KVCache
import Modeling
package import Parallelism
import Tensors

/// A transfer describes one collective of a parallel configuration: who takes part, and the size of its rows.
package struct Transfer: Sendable {
    package enum Kind: String, Sendable {
        case allGather = "all-gather"
        /// Each rank sends its addends to the rows' owners, which add them.
        case reduceScatter = "reduce-scatter"
        case allToAll = "all-to-all"
        /// One rank writes and others read; only a barrier is exchanged.
        case sharedMemory = "shared memory"
        case send = "send"
    }

    /// A transfer costs bytes only under this condition.
    package enum Condition: Sendable, Equatable {
        case always
        /// Some row is at this position or a later one.
        case positionsFrom(Int)
        /// The step has DCP rows.
        case dcpRows
        /// Some DCP row is at this position or a later one.
        case dcpRowsFrom(Int)
        /// The step gathers keys.
        case gatheredKeys
        /// Rows are sent only to the ranks of the experts they chose.
        case chosenExperts
        /// The step has rows whose logits are needed.
        case outputs
    }

    /// The flow determines which rows a rank receives.
    enum Flow: Sendable {
        case edge(Edge)
        /// Entries of so many tokens, each from the row that completes it.
        case published(Edge, tokensPerEntry: Int)
        /// Entries of a window, each from the owner of its row to the ranks that need it.
        case window(Edge, WindowReach)
        case dispatch, expertTensorSums, combine
        case stageInput, outputs, logits
        case dcpRows(DCPExchange)
        case gatheredKeys
    }

    /// The exchanges of query-gather attention, between the owners of rows and the owners of keys.
    enum DCPExchange: Sendable {
        case indexQueries, candidates, partialAttention
        /// The queries, followed by the `topK` selected positions of rows that select, which are those from a position on.
        case queries(topK: Int?, from: Int?)
    }

    /// The collective's name in metrics, traces and reports.
    package let name: String
    package let kind: Kind
    /// The members of a group differ along these axes.
    package let axes: Axes
    /// The number of ranks in a group.
    package let ranks: Int
    /// The number of elements in a row.
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
        // Activations are sent as they are computed, in F32.
        self.bytesPerRow = bytesPerRow ?? DType.f32.bytes(of: columns)
        self.ranks = ranks
        self.condition = condition
    }

    /// The number of selected positions that are sent with a row's query; `nil` for other exchanges.
    package var selectedColumns: Int? {
        if case .dcpRows(.queries(let topK, _)) = flow { topK } else { nil }
    }

    /// A transfer's bytes per row count for one of these units.
    package enum Unit: Sendable {
        case token
        /// A row whose logits are needed is the unit.
        case output
        /// A row of query-gather attention is the unit.
        case dcpRow
        /// A token whose keys earlier steps have stored is the unit.
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

    /// True if ranks receive entries of keys as their owners store them.
    package var isPublication: Bool {
        switch flow {
        case .published, .window: true
        default: false
        }
    }

    /// True if the bytes are an expectation rather than exact.
    package var isExpected: Bool { condition == .chosenExperts }
}
