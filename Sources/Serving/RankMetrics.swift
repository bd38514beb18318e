import Inference

extension MetricsPage {
    /// Writes the metrics of each rank, labelled with its number and its coordinate on every axis. The series restart
    /// at zero when the ranks are started again, as counters of Prometheus may.
    mutating func write(_ ranks: [RankStatus]) {
        guard !ranks.isEmpty else { return }
        let totals: [(String, String, (RankStatus) -> Double)] = [
            ("rank_steps_total", "Steps this rank took part in.", { Double($0.steps) }),
            ("rank_rows_total", "Rows this rank owned.", { Double($0.rows) }),
            ("rank_keys_scored_total", "Keys the indexer scored, over rows and layers.", { Double($0.keysScored) }),
            ("rank_keys_attended_total", "Keys attended to, over rows and layers.", { Double($0.keysAttended) }),
            ("rank_busy_seconds_total", "Time in steps, collectives not counted.", { $0.busySeconds }),
            ("rank_collective_seconds_total", "Time in collectives.", { $0.collectiveSeconds }),
        ]
        for (name, explanation, value) in totals {
            family(name, "counter", explanation)
            for rank in ranks { sample(name, value(rank), labels: Self.labels(rank)) }
        }
        let operations: [(String, String, (RankStatus.Operation) -> Double)] = [
            ("rank_operation_calls_total", "Collectives.", { Double($0.calls) }),
            ("rank_operation_seconds_total", "Time waiting for others and copying.", { $0.seconds }),
            ("rank_operation_bytes_total", "Bytes this rank received from others.", { Double($0.bytes) }),
            (
                "rank_operation_skew_seconds_total",
                "Time beyond that of the rank of the stage that spent least, step by step.", { $0.skewSeconds }
            ),
        ]
        guard ranks.contains(where: { !$0.operations.isEmpty }) else { return }
        for (name, explanation, value) in operations {
            family(name, "counter", explanation)
            for rank in ranks {
                for operation in rank.operations {
                    sample(name, value(operation), labels: Self.labels(rank) + [("operation", operation.name)])
                }
            }
        }
    }

    private static func labels(_ rank: RankStatus) -> [(String, String)] {
        [("rank", String(rank.rank))] + rank.coordinates.map { ($0.axis, String($0.place)) }
    }
}
