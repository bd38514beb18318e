import KVCache
import Modeling
import Parallelism

/// A collective of a layer where every rank owns as many rows as the others: `LayoutCost.bytes` in closed form, which does
/// not look at ranks one by one; only windows are counted rank by rank, by `LayoutTime`. Tests compare the two.
struct EvenTransfer: Sendable {
    /// How often a rank gets a row in it, for each row it owns.
    let rowsPerOwnRow: Double
    /// The reach of the entries, if ranks get only those window entries of a prompt that they need.
    let reach: WindowReach?
    let bytesPerRow: Double
    /// The part of what it gets that comes from other hosts.
    let foreignHosts: Double
    let condition: Transfer.Condition

    init(_ transfer: Transfer, _ cost: LayoutCost, _ rules: EngineRules, dispatch: Double, devicesPerHost: Int) {
        rowsPerOwnRow = Self.rows(transfer, cost, rules, dispatch: dispatch)
        // Keys are sent as the cache keeps them, activations as the engine has them.
        switch transfer.kind {
        case .sharedMemory: bytesPerRow = Double(transfer.bytesPerRow)
        default: bytesPerRow = Double(transfer.columns) * rules.activationBytes
        }
        foreignHosts = Self.foreignHosts(transfer, cost.parallel, devicesPerHost)
        condition = transfer.condition
        if case .window(_, let reach) = transfer.flow, !rules.gathersWholeWindows {
            self.reach = reach
        } else {
            reach = nil
        }
    }

    private static func rows(
        _ transfer: Transfer, _ cost: LayoutCost, _ rules: EngineRules, dispatch: Double
    ) -> Double {
        let parallel = cost.parallel
        let ranks = Double(parallel.stageRanks)
        let widths = Double(parallel.degree(.expertTensor))
        // The fraction of the other ranks that get a row: with all-to-all only those with an expert that it chose.
        let share = parallel.exchange == .allToAll ? dispatch : 1
        func held(_ layout: Layout) -> Double {
            Double(parallel.degree(Axes.stage.subtracting(parallel.onMesh(layout.rows))))
        }
        switch transfer.flow {
        case .edge(let edge):
            return switch edge.move {
            case .nothing: 0
            case .allGather: held(edge.to) - held(edge.from)
            case .reduceScatter: Double(transfer.ranks - 1) * held(edge.to)
            }
        // The few tokens of a step in decode are all in the window of the next ones.
        case .window(let edge, _): return held(edge.to) - held(edge.from)
        case .published(let edge, let tokens): return (held(edge.to) - held(edge.from)) / Double(tokens)
        case .dispatch: return (ranks - 1) * share
        case .combine:
            // Where widths are added first, only sums of other experts are still to come.
            return (ranks - (rules.sendsTreeLeaves ? 1 : widths)) * share / widths
        case .expertTensorSums:
            let leaves = ExpertExchange.blocks(of: cost.model.parallelShape.experts, parallel)
            let blocks = rules.sendsTreeLeaves ? Double(leaves) : 1
            return Double(transfer.ranks - 1) * blocks * ranks * share / widths
        case .stageInput: return 1
        case .dcpRows(.queries), .dcpRows(.partialAttention): return Double((transfer.ranks - 1) * parallel.tensor)
        case .outputs, .logits, .gatheredKeys, .dcpRows: return Double(transfer.ranks - 1)
        }
    }

    /// Members of a group stand at equal distances; those of one host are near each other.
    private static func foreignHosts(
        _ transfer: Transfer, _ parallel: ParallelConfiguration, _ devicesPerHost: Int
    ) -> Double {
        if transfer.kind == .send { return parallel.stageRanks >= devicesPerHost ? 1 : 0 }
        let extent: Int =
            switch transfer.axes {
            case .tensor, .dense, .expertTensor, .kvSharding: transfer.ranks
            case .context, [.context, .tensor]: parallel.context * parallel.tensor
            default: parallel.stageRanks
            }
        guard extent > devicesPerHost, transfer.ranks > 1 else { return 0 }
        let here = max(devicesPerHost * transfer.ranks / extent, 1)
        return Double(transfer.ranks - here) / Double(transfer.ranks - 1)
    }
}
