package import KVCache
package import Modeling
import Parallelism

extension StepRows {
    /// Counts the rows of each rank, as the cost model needs them.
    ///
    /// - Parameter format: the cache format, whose entries are counted as well.
    package init(_ assignment: RowAssignment, _ format: CacheFormat) {
        func maxPosition(_ rows: some Sequence<RowAssignment.Row>) -> Int {
            rows.reduce(-1) { max($0, assignment.plan.chunks[$1.chunk].start + $1.offset) }
        }
        self.init(
            owned: assignment.rows.map(\.count), outputs: assignment.outputs.map(\.count),
            maxPosition: assignment.rows.map(maxPosition))
        let dcpRows = assignment.rows.map { $0.filter { assignment.dcpChunks.contains($0.chunk) } }
        self.dcpRows = dcpRows.map(\.count)
        maxDCPPosition = dcpRows.map(maxPosition)
        for group in format.groups where group.tokensPerEntry > 1 {
            storedEntries[group.tokensPerEntry] = assignment.rows.map { rows in
                rows.count { group.closesEntry(at: assignment.plan.chunks[$0.chunk].start + $0.offset) }
            }
        }
        for reach in format.reaches {
            receivedWindows[reach] = (0..<assignment.configuration.data).flatMap {
                assignment.windowExchange(ofGroup: $0, reach, format).receivedCounts
            }
        }
        guard assignment.processSharding != nil else { return }
        let ranks = assignment.configuration.context * assignment.configuration.tensor
        gatheredKeys = (0..<assignment.configuration.data).flatMap {
            GatheredKeys.sent(assignment.gatheredPages(ofGroup: $0), by: ranks, assignment.configuration.kvSharding)
        }
    }
}
