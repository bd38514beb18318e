package import Inference
import KVCache
import Parallelism
import Tensors

/// A card as it is sent. What is read is checked, because it comes from another machine: every number is in a range in
/// which no arithmetic on it overflows, and no precondition of the types fails.
extension ServerCard: WireCodable {
    package static var empty: ServerCard {
        ServerCard(
            numerics: "", model: "",
            placement: CachePlacement(
                CacheFormat(layers: [], pageSize: 1), ParallelConfiguration(), processes: 1, stages: [],
                isSharded: false),
            layers: 0, drafts: 0, vocabularySize: 1)
    }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&protocolVersion)
        try wire.pass(&engine)
        var sentBackend = backend.rawValue
        try wire.pass(&sentBackend)
        guard let backend = TransferBackend(rawValue: sentBackend) else {
            throw Wire.Failure(description: "a transfer backend of number \(sentBackend)")
        }
        self.backend = backend
        try wire.pass(&numerics)
        try wire.pass(&model)
        var sent = SentPlacement(placement)
        try wire.pass(&sent)
        placement = try sent.placement()
        try wire.pass(&layers)
        try wire.pass(&drafts)
        try wire.pass(&vocabularySize)
        guard (0...placement.format.layers.count).contains(layers), (0...1024).contains(drafts),
            (1...Int(Int32.max)).contains(vocabularySize),
            numerics.utf8.count + model.utf8.count + engine.utf8.count <= 1024
        else { throw Wire.Failure(description: "a card of \(layers) layers and \(vocabularySize) tokens") }
    }
}

/// A cache placement without what follows from the rest.
private struct SentPlacement: WireCodable {
    var pageSize = 1
    var layers: [SentLayer] = []
    var parallel = ParallelConfiguration()
    var processes = 1
    var stages: [Int32] = []
    var isSharded = false

    static var empty: SentPlacement { SentPlacement() }

    private init() {}

    init(_ placement: CachePlacement) {
        pageSize = placement.format.pageSize
        layers = placement.format.layers.map { SentLayer(sets: $0.map(SentKeySet.init)) }
        parallel = placement.parallel
        processes = placement.processes
        stages = placement.stages.map { Int32($0) }
        isSharded = (placement.owners, placement.run) != (1, 1)
    }

    mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&pageSize)
        try wire.pass(&layers)
        try wire.pass(&parallel)
        try wire.pass(&processes)
        try wire.pass(&stages)
        try wire.pass(&isSharded)
    }

    private static let maxLayers = 4096

    func placement() throws(Wire.Failure) -> CachePlacement {
        guard (1...CacheFormat.maxPageSize).contains(pageSize), pageSize & (pageSize - 1) == 0,
            layers.count <= Self.maxLayers, stages.count == layers.count
        else {
            throw Wire.Failure(description: "\(layers.count) layers in pages of \(pageSize) tokens")
        }
        let ranks = parallel.world
        // Owners are ranks of a data group, each with as many copies; one process has nobody to divide its keys with.
        let (owners, unit) = (parallel.kvSharding.ranks, parallel.kvSharding.unit)
        let dividesKeys =
            processes > 1 && owners > 0 && (parallel.context * parallel.tensor) % owners == 0
            && (1...CacheFormat.maxPageSize).contains(unit)
        guard !isSharded || dividesKeys else {
            throw Wire.Failure(description: "keys divided among \(owners) owners by \(unit) in \(processes) processes")
        }
        guard (1...ranks).contains(processes), ranks % processes == 0,
            stages.allSatisfy({ (0..<parallel.pipeline).contains(Int($0)) })
        else {
            throw Wire.Failure(description: "\(processes) processes of \(ranks) ranks, and stages \(stages)")
        }
        var sets: [[KeySet]] = []
        for layer in layers { sets.append(try layer.keySets(pageSize: pageSize)) }
        if let set = CacheFormat.windowWithoutEntry(in: sets) {
            throw Wire.Failure(description: "a window read every \(set.readEvery) tokens, and no such entries")
        }
        return CachePlacement(
            CacheFormat(layers: sets, pageSize: pageSize), parallel, processes: processes, stages: stages.map(Int.init),
            isSharded: isSharded)
    }
}

private struct SentLayer: WireCodable {
    var sets: [SentKeySet] = []

    static var empty: SentLayer { SentLayer() }

    mutating func pass(_ wire: inout Wire) throws(Wire.Failure) { try wire.pass(&sets) }

    func keySets(pageSize: Int) throws(Wire.Failure) -> [KeySet] {
        var found: [KeySet] = []
        for set in sets { found.append(try set.keySet(pageSize: pageSize)) }
        return found
    }
}

private struct SentKeySet: WireCodable {
    var name = ""
    var lanes: [SentLane] = []
    var tokensPerEntry = 1
    /// The tokens of the window; 0 for none.
    var window = 0
    var readEvery = 1
    var isReadByLaterLayers = false

    static var empty: SentKeySet { SentKeySet() }

    private init() {}

    init(_ set: KeySet) {
        name = set.name
        lanes = set.lanes.map {
            SentLane(type: "\($0.dtype)", width: $0.width, group: $0.group, scales: "\($0.scaleType)")
        }
        tokensPerEntry = set.tokensPerEntry
        window = set.window ?? 0
        readEvery = set.readEvery
        isReadByLaterLayers = set.isReadByLaterLayers
    }

    mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&name)
        try wire.pass(&lanes)
        try wire.pass(&tokensPerEntry)
        try wire.pass(&window)
        try wire.pass(&readEvery)
        try wire.pass(&isReadByLaterLayers)
    }

    private static let maxWindow = 1 << 24

    func keySet(pageSize: Int) throws(Wire.Failure) -> KeySet {
        // Differences of formats are compared as text, so a name must not look like anything else.
        let isName = name.utf8.count <= 64 && name.allSatisfy { $0.isLetter || $0.isNumber || " -_".contains($0) }
        guard isName, (1...64).contains(lanes.count), (1...pageSize).contains(tokensPerEntry),
            tokensPerEntry & (tokensPerEntry - 1) == 0, (0...Self.maxWindow).contains(window),
            window == 0 || tokensPerEntry == 1, (1...max(window, 1)).contains(readEvery)
        else {
            throw Wire.Failure(
                description: "a key set of \(lanes.count) lanes, \(tokensPerEntry) tokens and a window of \(window)")
        }
        var found: [KeySet.Lane] = []
        for lane in lanes { found.append(try lane.lane()) }
        return KeySet(
            name, found, tokensPerEntry: tokensPerEntry, lifetime: window == 0 ? .request : .window(tokens: window),
            readEvery: readEvery, isReadByLaterLayers: isReadByLaterLayers)
    }
}

private struct SentLane: WireCodable {
    var type = ""
    var width = 1
    var group = 1
    var scales = ""

    static var empty: SentLane { SentLane() }

    mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&type)
        try wire.pass(&width)
        try wire.pass(&group)
        try wire.pass(&scales)
    }

    private static let types: [DType] = [.f32, .bf16, .fp8, .fp4]
    private static let maxWidth = 1 << 20

    func lane() throws(Wire.Failure) -> KeySet.Lane {
        guard let dtype = Self.types.first(where: { "\($0)" == type }), (1...Self.maxWidth).contains(width),
            (1...Self.maxWidth).contains(group)
        else { throw Wire.Failure(description: "a lane of \(width) elements in groups of \(group)") }
        guard let scaleType = ScaleType.allCases.first(where: { "\($0)" == scales }),
            dtype == .fp8 || scaleType == (dtype == .fp4 ? .e8m0 : .f32)
        else { throw Wire.Failure(description: "a \(dtype) lane with scales of another type") }
        return KeySet.Lane(dtype, width: width, group: group, scaleType: scaleType)
    }
}
