package import KVCache
import Parallelism

extension RowAssignment {
    /// Returns the window entries that the ranks of a data group send each other.
    ///
    /// - Parameter format: the cache format, which has key sets of this reach.
    package func windowExchange(
        ofGroup group: Int, _ reach: WindowReach, _ format: CacheFormat
    ) -> WindowExchange {
        let size = configuration.context * configuration.tensor
        return WindowExchange(
            reach, format, runs: rows[group * size..<(group + 1) * size].map(runs), tensor: configuration.tensor
        ) { chunk in
            // Rejected drafts are computed again.
            plan.chunks[chunk].start + plan.chunks[chunk].tokens.count - plan.chunks[chunk].drafts.count
        }
    }

    private func runs(of rows: [Row]) -> [WindowExchange.Run] {
        var runs: [WindowExchange.Run] = []
        for (index, row) in rows.enumerated() {
            let position = plan.chunks[row.chunk].start + row.offset
            if let last = runs.last, last.chunk == row.chunk, last.positions.upperBound == position {
                runs[runs.count - 1].positions = last.positions.lowerBound..<position + 1
            } else {
                runs.append(WindowExchange.Run(chunk: row.chunk, position..<position + 1, firstRow: index))
            }
        }
        return runs
    }
}
