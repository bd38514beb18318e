package import JSON
import KVCache
import Models
import Parallelism

extension LayoutReport {
    /// For machines; bytes as numbers.
    package var json: JSONValue {
        .fields([
            "kind": .string("layout"), "model": .string(name), "layout": .string("\(parallel)"),
            "threads_per_rank": .integer(threadsPerRank), "degrees": degrees,
            "strategy": .string(parallel.strategy.rawValue), "exchange": .string("\(parallel.exchange)"),
            "keeps_bits": .bool(keepsBits),
            "tokens": .integer(example.tokens), "chunk": .integer(example.chunk), "weight_bytes": .integer(weightBytes),
            "kv_cache_dtype": .string(cacheType.rawValue), "kv_bytes_per_token": .integer(cacheBytesPerToken),
            "memory_bytes": .integer(memory), "capacity_tokens": .integer(capacity),
            "ownership": ownership, "ranks": .array(ranks.map(json)),
            "layers": .array(
                layerKinds.map { kind in
                    .fields([
                        "kind": .string(kind.rawValue), "first": .integer(layers(kind)!.lowerBound),
                        "last": .integer(layers(kind)!.upperBound),
                        "collectives": .array(cost.transfers(of: kind).map(json)),
                    ])
                }),
            "stages": .array(cost.transfersOfStages.map(json)),
        ])
    }

    private var degrees: JSONValue {
        .fields([
            "pipeline": .integer(parallel.pipeline), "data": .integer(parallel.data),
            "context": .integer(parallel.context),
            "tensor": .integer(parallel.tensor), "expert": .integer(parallel.degree(.expert)),
            "expert_width": .integer(parallel.degree(.expertWidth)), "dense": .integer(parallel.denseTensor),
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
        case .positionsFrom(let position), .travellingFrom(let position):
            members.append(JSONMember("from_position", .integer(position)))
        case .always, .travelling, .visiting, .chosenExperts, .outputs: break
        }
        return .object(members)
    }

    private var ownership: JSONValue {
        .fields([
            "ranks": .integer(parallel.ownership.ranks), "unit": .integer(parallel.ownership.unit),
            "least_keys": .integer(parallel.ownership.leastKeys), "bytes_per_rank": .integer(keyMemory),
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
                        "queries_go_to_keys": .bool($0.queriesTravel),
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
        case .traveller: "bytes_per_travelling_row"
        case .visitor: "bytes_per_visiting_key"
        }
    }
}
