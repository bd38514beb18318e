extension ParallelConfiguration {
    /// A short name from which `init(notation:for:)` restores the configuration, such as `pp2:1,3 dp2 cp4 tp2 ep8
    /// etp2 dense2 dcp4:2,64 zigzag alltoall`. Degrees of 1 and options without effect are left out; without `ep` and
    /// `etp` every rank has all experts of its layers. `dcp4:2,64` shards keys in runs of 2 and uses query-gather
    /// attention from 64 keys on.
    package var notation: String {
        var words: [String] = []
        if pipeline > 1 { words.append("pp\(pipeline)" + (stageLayers.map { ":" + $0.commaList } ?? "")) }
        let degrees = [
            ("dp", data), ("cp", context), ("tp", tensor), ("ep", expert), ("etp", expertTensor),
            ("dense", denseTensor),
        ]
        words += degrees.filter { $0.1 > 1 }.map { "\($0.0)\($0.1)" }
        if kvSharding.ranks > 1 {
            let runs = kvSharding.unit > 1 || kvSharding.minKeys > 1 ? ":\(kvSharding.unit)" : ""
            words.append("dcp\(kvSharding.ranks)\(runs)" + (kvSharding.minKeys > 1 ? ",\(kvSharding.minKeys)" : ""))
        }
        if context > 1 { words.append(strategy.rawValue) }
        if stageRanks > 1 && !replicatesExperts { words.append(exchange.notation) }
        return words.isEmpty ? "one" : words.joined(separator: " ")
    }

    /// Creates the configuration with this name.
    ///
    /// - Throws: `NotationError` if the words form no configuration, or one that this shape does not allow.
    package init(notation: String, for shape: ModelShape) throws(NotationError) {
        self.init()
        for word in notation.split(separator: " ") { try read(String(word)) }
        if checkedWorld == nil { throw NotationError("it has more than \(Self.maxRanks) ranks") }
        if pipeline < 1 || pipeline > shape.layers {
            throw NotationError("there are \(shape.layers) layers for stages")
        }
        if let stageLayers, stageLayers.count != pipeline || stageLayers.reduce(0, +) != shape.layers {
            throw NotationError(
                "\(stageLayers.commaList) are not the layers of \(pipeline) stages, \(shape.layers) in all")
        }
        if shape.heads % tensor != 0 { throw NotationError("\(shape.heads) heads do not divide over tp\(tensor)") }
        let isWhole = expert == 1 && expertTensor == 1
        let isDivided =
            shape.expertDegrees(ranks: stageRanks).contains(expert)
            && shape.expertTensor(expert: expert, ranks: stageRanks) == expertTensor
        if !isWhole && !isDivided {
            throw NotationError("\(stageRanks) ranks cannot divide the experts into ep\(expert) etp\(expertTensor)")
        }
        if context * tensor % kvSharding.ranks != 0 {
            throw NotationError("cp\(context) tp\(tensor) ranks do not divide into sets of dcp\(kvSharding.ranks)")
        }
        let canShare = shape.feedForwardWidths.allSatisfy { ModelShape.shares($0, over: denseTensor) }
        if denseTensor != 1 && (denseTensor != tensor || !canShare) {
            throw NotationError("tp\(tensor) ranks cannot share the feed-forwards as dense\(denseTensor)")
        }
    }

    private mutating func read(_ word: String) throws(NotationError) {
        if word == "one" { return }
        if word == "gathered" {
            exchange = .gathered
            return
        }
        if let strategy = PartitionStrategy(rawValue: word) {
            self.strategy = strategy
            return
        }
        if let exchange = ExpertExchangeKind(rawValue: word) {
            self.exchange = exchange
            return
        }
        let parts = word.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        let name = parts[0].prefix { !$0.isNumber }
        guard let value = Int(parts[0].dropFirst(name.count)), (1...Self.maxRanks).contains(value) else {
            throw NotationError("'\(word)' is no part of a layout; write for example cp4 tp2 ep8 zigzag alltoall")
        }
        switch name {
        case "pp":
            pipeline = value
            if parts.count > 1 { stageLayers = try Self.numbers(String(parts[1]), "of layers") }
            return
        case "dcp":
            let numbers = try parts.count > 1 ? Self.numbers(String(parts[1]), "of tokens") : []
            guard numbers.count <= 2 else { throw NotationError("'\(word)' has more than a run and a least number") }
            // The default of 1 uses query-gather attention in short contexts too, so that verification reaches it.
            kvSharding = KVSharding(
                ranks: value, unit: numbers.first ?? 1, minKeys: numbers.count > 1 ? numbers[1] : 1)
        case "dp" where parts.count == 1: data = value
        case "cp" where parts.count == 1: context = value
        case "tp" where parts.count == 1: tensor = value
        case "ep" where parts.count == 1: expert = value
        case "etp" where parts.count == 1: expertTensor = value
        case "dense" where parts.count == 1: denseTensor = value
        default:
            throw NotationError("'\(word)' is no part of a layout; there are pp, dp, cp, tp, ep, etp, dense and dcp")
        }
    }

    private static func numbers(_ list: String, _ what: String) throws(NotationError) -> [Int] {
        let fields = list.split(separator: ",", omittingEmptySubsequences: false)
        let numbers = fields.compactMap { Int($0) }.filter { (1...65_536).contains($0) }
        guard numbers.count == fields.count else { throw NotationError("'\(list)' are no numbers \(what)") }
        return numbers
    }
}

extension ExpertExchangeKind {
    /// The name of the kind in a notation, where `none` would be read as no exchange.
    package var notation: String { self == .gathered ? "gathered" : rawValue }
}

/// Says what is wrong with the notation of a configuration.
package struct NotationError: Error, Equatable, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}
