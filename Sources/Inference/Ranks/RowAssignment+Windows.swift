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
            reach, format, runs: rows[group * size..<(group + 1) * size].map(runs),
            earlier: earlierRuns(ofGroup: group, reach, format), tensor: configuration.tensor
        ) { plan.chunks[$0].nextPosition }
    }

    /// Returns the entries of earlier steps that each rank of a data group sends to all others; an empty list if there are
    /// none.
    private func earlierRuns(
        ofGroup group: Int, _ reach: WindowReach, _ format: CacheFormat
    ) -> [[WindowExchange.Run]] {
        var runs: [[WindowExchange.Run]] = []
        for (index, chunk) in plan.chunks.enumerated() where chunk.group == group {
            guard let sources = chunk.windowSources else { continue }
            if runs.isEmpty {
                runs = Array(repeating: [], count: configuration.context * configuration.tensor)
            }
            let seen = max(sources.end - reach.overlap, chunk.firstWindowPage * format.pageSize)..<sources.end
            for (positions, rank) in sources.units(of: format.positionAlignment) {
                let sent = positions.clamped(to: seen)
                if !sent.isEmpty { runs[rank].append(WindowExchange.Run(chunk: index, sent)) }
            }
        }
        return runs
    }

    private func runs(of rows: [Row]) -> [WindowExchange.Run] {
        var runs: [WindowExchange.Run] = []
        for row in rows {
            let position = plan.chunks[row.chunk].start + row.offset
            if let last = runs.last, last.chunk == row.chunk, last.positions.upperBound == position {
                runs[runs.count - 1].positions = last.positions.lowerBound..<position + 1
            } else {
                runs.append(WindowExchange.Run(chunk: row.chunk, position..<position + 1))
            }
        }
        return runs
    }
}
