import DeepSeekV32
import KVCache
import Modeling
import Parallelism
package import Tokenization

extension LayoutReport {
    /// For machines; bytes as numbers.
    package var json: JSONValue {
        .record([
            "kind": .string("layout"), "model": .string(name), "layout": .string("\(parallel)"),
            "threads_per_rank": .count(threadsPerRank), "degrees": degrees,
            "strategy": .string(parallel.strategy.rawValue), "exchange": .string("\(parallel.exchange)"),
            "keeps_bits": .bool(isBitwiseEqual),
            "tokens": .count(example.tokens), "chunk": .count(example.chunk), "weight_bytes": .count(weightBytes),
            "kv_cache_dtype": .string(cacheType.rawValue), "kv_bytes_per_token": .count(cacheBytesPerToken),
            "memory_bytes": .count(memory), "capacity_tokens": .count(capacity),
            "ownership": kvSharding, "ranks": .array(ranks.map(json)),
            "layers": .array(
                layerKinds.map { kind in
                    .record([
                        "kind": .string(kind.rawValue), "first": .count(layers(kind)!.lowerBound),
                        "last": .count(layers(kind)!.upperBound),
                        "collectives": .array(cost.transfers(of: kind).map(json)),
                    ])
                }),
            "stages": .array(cost.transfersOfStages.map(json)),
        ])
    }

    private var degrees: JSONValue {
        .record([
            "pipeline": .count(parallel.pipeline), "data": .count(parallel.data), "context": .count(parallel.context),
            "tensor": .count(parallel.tensor), "expert": .count(parallel.degree(.expert)),
            "expert_width": .count(parallel.degree(.expertWidth)), "dense": .count(parallel.denseTensor),
        ])
    }

    private func json(_ rank: Rank) -> JSONValue {
        func range(_ range: Range<Int>) -> JSONValue { .array([.count(range.lowerBound), .count(range.upperBound)]) }
        return .object(
            [JSONMember("rank", .count(rank.share.rank))]
                + rank.coordinates.map { JSONMember("\($0.axis)", .count($0.place)) }
                + JSONMember.list([
                    "layers": range(rank.share.layers), "heads": range(rank.share.heads),
                    "experts": range(rank.share.experts), "expert_columns": range(rank.share.expertColumns),
                    "vocabulary": range(rank.share.vocabulary), "rows": .count(rank.rows),
                    "causal_work": .measured(rank.causalWork), "bytes_received": .amount(rank.received),
                    "weight_bytes": .amount(rank.weightBytes.rounded()),
                    "kv_bytes_per_token": .amount(cacheBytesPerToken(of: rank)),
                ]))
    }

    private func json(_ transfer: Transfer) -> JSONValue {
        var members = JSONMember.list([
            "name": .string(transfer.name), "kind": .string(transfer.kind.rawValue),
            "group": .string(group(transfer)), "group_ranks": .count(transfer.ranks),
            "columns": .count(transfer.columns), "bytes_per_row": .count(transfer.bytesPerRow),
            transfer.unit.jsonName: .amount(bytesPerUnit(transfer)),
            "prediction": .string(transfer.isExpected ? "expected" : "exact"),
        ])
        switch transfer.condition {
        case .positionsFrom(let position), .dcpRowsFrom(let position):
            members.append(JSONMember("from_position", .count(position)))
        case .always, .dcpRows, .gatheredKeys, .chosenExperts, .outputs: break
        }
        return .object(members)
    }

    private var kvSharding: JSONValue {
        .record([
            "ranks": .count(parallel.kvSharding.ranks), "unit": .count(parallel.kvSharding.unit),
            "least_keys": .count(parallel.kvSharding.minKeys), "bytes_per_rank": .count(keyMemory),
            "capacities": .array(
                capacities.map {
                    .record([
                        "ranks": .count($0.owners), "kv_bytes_per_token_and_rank": .amount($0.bytesPerToken),
                        "tokens": .count($0.tokens),
                    ])
                }),
            "ways": .array(
                ways.map {
                    .record([
                        "step": .string($0.step), "rows": .count($0.rows),
                        "queries_go_to_keys": .bool($0.usesDCP),
                    ])
                }),
        ])
    }
}

extension Transfer.Unit {
    fileprivate var jsonName: String {
        switch self {
        case .token: "bytes_per_token"
        case .output: "bytes_per_output"
        case .dcpRow: "bytes_per_dcp_row"
        case .gatheredKey: "bytes_per_gathered_key"
        }
    }
}
