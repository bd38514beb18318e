import Foundation
import KVCache
import Modeling
import Parallelism
import Planning

extension LayoutReport {
    /// The report for a terminal.
    package var text: String {
        let sections =
            [summary, rankTable, sequence]
            + (parallel.world > 1
                ? [capacityTable, wayTable] + cost.layerKinds.map(table) + [keyTrafficTable, keyTable, stageTable] : [])
        return sections.filter { !$0.isEmpty }.map { $0.joined(separator: "\n") }.joined(separator: "\n\n")
    }

    private var summary: [String] {
        var lines = [titled("layout", "\(parallel)")]
        if threadsPerRank > 1 { lines.append(titled("threads", "\(threadsPerRank) a rank")) }
        let bits = isBitwiseEqual ? "those of one rank" : "not those of one rank: equal to about 1e-5"
        if parallel.world > 1 { lines.append(titled("bits", bits)) }
        lines.append(
            titled(
                "cache",
                "\(cacheType.rawValue): \(cacheBytesPerLayer) bytes per token and layer"
                    + (parallel.world > 1 ? "; a rank writes those of its rows" : "")))
        lines += entryBytes
        if parallel.kvSharding.ranks > 1 { lines.append(titled("keys", kvShardingRule)) }
        let shared = parallel.world > 1 ? ", mapped once for all \(parallel.world) ranks" : ""
        lines.append(titled("memory", "\(gibibytes(memory)): weights \(gibibytes(weightBytes))\(shared)"))
        lines.append(titled("capacity", capacityInWords))
        return lines
    }

    private var capacityInWords: String {
        switch capacity {
        case 0: "no token: the weights alone need more than there is"
        case .max: "contexts of any length: layers keep the keys of a window only"
        default: "\(grouped(capacity)) tokens in the rest" + (parallel.world > 1 ? ", in one cache for all ranks" : "")
        }
    }

    func gibibytes(_ bytes: Int) -> String { String(format: "%.2f GiB", Double(bytes) / 1_073_741_824) }

    /// A table of each rank's coordinates, its share of the model, and its work for the example.
    private var rankTable: [String] {
        guard parallel.world > 1 else { return [] }
        let axes = ranks[0].coordinates.map(\.axis).filter { parallel.degree(Axes($0)) > 1 }
        let titles = axes.map { "\($0)" } + ["layers", model.parallelShape.headsName, "experts", "columns", "weights"]
        var table = TextTable(["rank"] + titles + ["rows", "KV/token", "attention", "gets"], left: 0)
        for rank in ranks {
            let share = rank.share
            let places = rank.coordinates.filter { axes.contains($0.axis) }.map { "\($0.place)" }
            let parts = [share.layers, share.heads, share.experts, share.expertColumns].map(span)
            table.add(
                ["\(share.rank)"] + places + parts + [bytesText(rank.weightBytes), grouped(rank.rows)]
                    + [
                        number(cacheBytesPerToken(of: rank)), percent(rank.causalWork),
                        (receivesExpected ? "~" : "") + bytesText(rank.received),
                    ])
        }
        let prompts = parallel.data > 1 ? "\(parallel.data) prompts, one for each data group," : "a prompt"
        return [
            "ranks, for \(prompts) of \(grouped(example.tokens)) tokens"
                + (example.chunk < example.tokens ? " in chunks of \(grouped(example.chunk))" : " in one step")
        ] + table.lines + [
            "columns: of each expert · weights: as read, from one mapping for all ranks · KV/token: bytes it writes",
            "attention: part of a prompt's pairs of row and key × heads · gets: bytes from other ranks",
        ]
    }

    /// The bytes of a token's keys in a layer: the least and the most where layers differ.
    private var cacheBytesPerLayer: String {
        let bytes = model.layers.indices.map { cost.cacheBytes(ofLayer: $0) }
        let (least, most) = (bytes.min() ?? 0, bytes.max() ?? 0)
        return least == most ? grouped(most) : "\(grouped(least)) to \(grouped(most))"
    }

    /// The bytes of an entry of each kind of key set, where entries are not those of a token each.
    private var entryBytes: [String] {
        guard cost.format.groups.count > 1 else { return [] }
        let kinds = cost.format.layers.joined().map { set in
            let tokens = set.tokensPerEntry == 1 ? "" : " of \(set.tokensPerEntry) tokens"
            return "\(set.name)\(tokens) \(grouped(set.bytesPerEntry))"
        }
        let distinct = kinds.enumerated().filter { kinds.firstIndex(of: $0.element) == $0.offset }.map(\.element)
        return [titled("entries", "bytes of each: " + distinct.joined(separator: ", "))]
    }

    /// True if the bytes that ranks receive depend on the router.
    private var receivesExpected: Bool { cost.layerKinds.flatMap(cost.transfers).contains { $0.isExpected } }

    private var sequence: [String] {
        guard parallel.context > 1 else { return [] }
        let strip = SequenceStrip(owners, width: 64)
        let unit = cost.format.positionAlignment
        let units = unit > 1 ? "unit g, of \(unit) tokens," : "row g"
        let rule =
            switch parallel.strategy {
            case .interleaved: "\(units) of a step goes to context rank g mod \(parallel.context)"
            case .zigzag: "of \(2 * parallel.context) blocks, context rank r has r and \(2 * parallel.context - 1) − r"
            case .contiguous: "context rank r has the r-th part"
            }
        return ["sequence, \(parallel.strategy): \(rule)", strip.text, strip.caption]
    }

    private func table(_ kind: LayoutCost.LayerKind) -> [String] {
        let layers = kind.layers
        let number =
            layers.count == 1 ? "layer \(layers[0])" : "each of layers \(layers.first!)–\(layers.last!)"
        return table(
            "\(number), \(kind.name)", cost.transfers(of: kind).filter { $0.unit == .token }, per: "token")
    }

    /// A table of the collectives of query-gather attention, which are the same in every layer.
    private var keyTable: [String] {
        let transfers = cost.transfers(of: cost.layerKinds[0]).filter { $0.unit == .dcpRow }
        return table("every layer, for rows of query-gather attention", transfers, per: "row")
    }

    private var stageTable: [String] {
        let transfers = cost.transfersOfStages
        let between = transfers.filter { $0.unit == .token }
        return table("between stages", between, per: "token") + (between.isEmpty ? [] : [""])
            + table(
                "last stage, for rows whose logits are needed", transfers.filter { $0.unit == .output },
                per: "row")
    }

    private func table(_ title: String, _ transfers: [Transfer], per unit: String) -> [String] {
        if transfers.isEmpty { return unit == "token" && title != "between stages" ? ["\(title): nothing moves"] : [] }
        var table = TextTable(["collective", "kind", "group", "ranks", "row", "bytes/\(unit)", "per rank"], left: 3)
        for transfer in transfers {
            let bytes = bytesPerUnit(transfer)
            table.add([
                transfer.name, transfer.kind.rawValue, group(transfer), "\(transfer.ranks)", transfer.rowText,
                (transfer.isExpected ? "~" : "") + number(bytes),
                (transfer.isExpected ? "~" : "") + number(bytes / Double(parallel.stageRanks)),
            ])
        }
        return [title] + table.lines + notes(transfers)
    }

    /// Returns the axes of a group that have a degree above 1.
    func group(_ transfer: Transfer) -> String {
        let axes = Axis.allCases.filter { transfer.axes.contains($0) && parallel.degree(Axes($0)) > 1 }
        return axes.map(Self.name).joined(separator: " × ")
    }

    private static func name(_ axis: Axis) -> String {
        switch axis {
        case .expertTensor: "expert tensor"
        case .kvSharding: "KV owners"
        default: "\(axis)"
        }
    }

    private func notes(_ transfers: [Transfer]) -> [String] {
        transfers.compactMap { transfer in
            switch transfer.condition {
            case .positionsFrom(let position), .dcpRowsFrom(let position):
                "\(transfer.name): only for groups with a row at position \(grouped(position)) or later"
            case .always, .dcpRows, .gatheredKeys, .chosenExperts, .outputs: nil
            }
        } + (transfers.contains { $0.isExpected } ? ["~ expected, if the router prefers no expert"] : [])
    }

    func number(_ value: Double) -> String {
        value >= 1000 || value == value.rounded() ? grouped(Int(value.rounded())) : String(format: "%.1f", value)
    }

    private func span(_ range: Range<Int>) -> String {
        switch range.count {
        case 0: "–"
        case 1: "\(range.lowerBound)"
        default: "\(range.lowerBound)–\(range.upperBound - 1)"
        }
    }
}

extension Transfer {
    /// The type of a row: `[576] f32`, `[704] cache` for entries of the cache that are read in place, or `[512] i32`
    /// for positions.
    var rowText: String {
        if kind == .sharedMemory { return "[\(columns)] cache" }
        if case .positionsFrom = condition { return "[\(columns)] i32" }
        return "[\(columns)] f32" + (selectedColumns.map { " + [\($0)] i32" } ?? "")
    }
}
