import Inference
import KVCache
import Modeling
import Parallelism
import Planning

/// This part of the report is about KV sharding: the owners of keys, the capacity of the cache, and which steps use
/// query-gather attention.
extension LayoutReport {
    /// A capacity is the number of tokens whose keys fit if each is stored by one of `owners` ranks.
    package struct Capacity: Sendable, Equatable {
        package let owners: Int
        /// The bytes that a rank stores per token, on average.
        package let bytesPerToken: Double
        package let tokens: Int
    }

    /// The memory that one rank has for keys if it has the memory for itself, without the weights it reads.
    package var keyMemory: Int { max(memory - Int(ranks.map(\.weightBytes).max()!.rounded(.up)), 0) }

    /// The capacities for the usual numbers of owners, and for that of this configuration.
    package var capacities: [Capacity] {
        Set([1, 2, 4, 8, parallel.kvSharding.ranks]).sorted().map {
            Capacity(
                owners: $0, bytesPerToken: cost.keyBytesPerToken(owners: $0),
                tokens: cost.capacity(bytesPerRank: keyMemory, owners: $0))
        }
    }

    /// A way tells whether a step uses query-gather attention.
    package struct Way: Sendable, Equatable {
        package let step: String
        package let rows: Int
        package let usesDCP: Bool
    }

    /// The ways of some steps of requests as long as the example, as `RowAssignment` decides.
    package var ways: [Way] {
        let owners = parallel.kvSharding.ranks
        if owners == 1 { return [] }
        func way(_ step: String, requests: Int = 1, rows: Int = 1, start: Int? = nil) -> Way {
            let chunks = (0..<requests).map {
                StepPlan.Chunk(
                    request: UInt64($0), tokens: Array(repeating: 0, count: rows), start: start ?? example.tokens,
                    pages: [])
            }
            let assignment = RowAssignment(
                StepPlan(number: 0, chunks: chunks), parallel, alignment: cost.format.positionAlignment)
            return Way(step: step, rows: requests * rows, usesDCP: !assignment.dcpChunks.isEmpty)
        }
        return [
            way("a request decodes"), way("\(owners / 2 + 1) requests decode", requests: owners / 2 + 1),
            way("\(owners) requests decode", requests: owners),
            way("\(owners + 1) requests decode", requests: owners + 1),
            way("a question of \(owners + 1) tokens", rows: owners + 1), way("a question of 64 tokens", rows: 64),
            way("a prompt's first \(grouped(example.chunk)) tokens", rows: example.chunk, start: 0),
        ]
    }

    // MARK: - For a terminal

    var kvShardingRule: String {
        let (owners, unit) = (parallel.kvSharding.ranks, parallel.kvSharding.unit)
        let run = unit > 1 ? "⌊t / \(unit)⌋" : "t"
        return "token t belongs to rank \(run) mod \(owners) of each \(owners) consecutive ranks of a data group"
    }

    var capacityTable: [String] {
        if keyMemory == 0 { return [] }
        var table = TextTable(["keys owned by", "KV/token and rank", "tokens"], left: 0)
        for capacity in capacities {
            let isThis = capacity.owners == parallel.kvSharding.ranks
            table.add([
                "\(isThis ? "this: " : "")\(capacity.owners)", number(capacity.bytesPerToken),
                capacity.tokens == .max ? "any number" : grouped(capacity.tokens),
            ])
        }
        return ["capacity, if every rank keeps what it owns in \(gibibytes(keyMemory)) of its own"] + table.lines
    }

    var wayTable: [String] {
        if ways.isEmpty { return [] }
        var table = TextTable(["step", "way", "rows"], left: 2)
        for way in ways {
            table.add([
                way.step, way.usesDCP ? "query-gather attention" : "owners of rows read all keys", "\(way.rows)",
            ])
        }
        return ["attention after \(grouped(example.tokens)) tokens"] + table.lines + [
            "query-gather attention reads at least \(grouped(parallel.kvSharding.minKeys)) keys, and takes a fifth off what "
                + "the busiest rank reads"
        ]
    }
}
