package import JSON
import KVCache
import Modeling
import Parallelism
import Planning
import Tensors

extension LayoutReport {
    /// The report for programs, with bytes as numbers.
    package var json: JSONValue {
        .fields([
            "kind": .string("layout"), "model": .string(name), "layout": .string("\(parallel)"),
            "threads_per_rank": .integer(threadsPerRank), "degrees": degrees,
            "strategy": .string(parallel.strategy.rawValue), "exchange": .string("\(parallel.exchange)"),
            "bitwise_equal": .bool(isBitwiseEqual),
            "tokens": .integer(example.tokens), "chunk": .integer(example.chunk), "weight_bytes": .integer(weightBytes),
            "dtype": .string(profile.name),
            "kv_cache_dtype": .string(cacheType.keys.rawValue),
            "enable_deepseek_v4_fp4_indexer": .bool(cacheType.hasFP4Index),
            "kv_bytes_per_token": .integer(cacheBytesPerToken),
            "memory_bytes": .integer(memory), "capacity_tokens": .integer(capacity),
            "kv_sharding": kvSharding, "ranks": .array(ranks.map(json)),
            "layers": .array(
                cost.layerKinds.map { kind in
                    .fields([
                        "kind": .string(kind.name), "first": .integer(kind.layers.first!),
                        "last": .integer(kind.layers.last!),
                        "collectives": .array(cost.transfers(of: kind).map(json)),
                    ])
                }),
            "stages": .array(cost.transfersOfStages.map(json)),
            "key_traffic": .array(keyTraffic.map(json)),
        ])
    }

    private var degrees: JSONValue {
        .fields([
            "pipeline": .integer(parallel.pipeline), "data": .integer(parallel.data),
            "context": .integer(parallel.context),
            "tensor": .integer(parallel.tensor), "expert": .integer(parallel.degree(.expert)),
            "expert_tensor": .integer(parallel.degree(.expertTensor)), "dense": .integer(parallel.denseTensor),
        ])
    }

    private func json(_ traffic: KeyTraffic) -> JSONValue {
        .fields([
            "kind": .string(traffic.kind), "layers": .integer(traffic.layers),
            "bytes_per_token_and_rank": .amount(traffic.moved),
            "whole_sequence_bytes_per_token_and_rank": .amount(traffic.wholeSequences),
        ])
    }

    private func json(_ rank: Rank) -> JSONValue {
        func range(_ range: Range<Int>) -> JSONValue {
            .array([.integer(range.lowerBound), .integer(range.upperBound)])
        }
        return .object(
            [JSONMember("rank", .integer(rank.share.rank))]
                + rank.coordinates.map { JSONMember("\($0.axis)", .integer($0.place)) }
                + JSONMember.list([
                    "layers": range(rank.share.layers), "heads": range(rank.share.heads),
                    "experts": range(rank.share.experts), "expert_columns": range(rank.share.expertColumns),
                    "vocabulary": range(rank.share.vocabulary), "rows": .integer(rank.rows),
                    "causal_work": .measured(rank.causalWork), "bytes_received": .amount(rank.received),
                    "weight_bytes": .amount(rank.weightBytes.rounded()),
                    "kv_bytes_per_token": .amount(cacheBytesPerToken(of: rank)),
                ]))
    }

    private func json(_ transfer: Transfer) -> JSONValue {
        var members = JSONMember.list([
            "name": .string(transfer.name), "kind": .string(transfer.kind.rawValue),
            "group": .string(group(transfer)), "group_ranks": .integer(transfer.ranks),
            "columns": .integer(transfer.columns), "bytes_per_row": .integer(transfer.bytesPerRow),
            transfer.unit.jsonName: .amount(bytesPerUnit(transfer)),
            "prediction": .string(transfer.isExpected ? "expected" : "exact"),
        ])
        switch transfer.condition {
        case .positionsFrom(let position), .dcpRowsFrom(let position):
            members.append(JSONMember("from_position", .integer(position)))
        case .always, .dcpRows, .gatheredKeys, .chosenExperts, .outputs: break
        }
        return .object(members)
    }

    private var kvSharding: JSONValue {
        .fields([
            "ranks": .integer(parallel.kvSharding.ranks), "unit": .integer(parallel.kvSharding.unit),
            "least_keys": .integer(parallel.kvSharding.minKeys), "bytes_per_rank": .integer(keyMemory),
            "capacities": .array(
                capacities.map {
                    .fields([
                        "ranks": .integer($0.owners), "kv_bytes_per_token_and_rank": .amount($0.bytesPerToken),
                        "tokens": .integer($0.tokens),
                    ])
                }),
            "ways": .array(
                ways.map {
                    .fields([
                        "step": .string($0.step), "rows": .integer($0.rows),
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
