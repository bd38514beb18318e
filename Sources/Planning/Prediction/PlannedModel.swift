package import KVCache
package import Modeling
import Tensors

/// A model as predictions see it: its layers' operations added up by kind of layer and by how ranks divide them.
package struct PlannedModel: Sendable {
    package let name: String
    /// What commands take as `--model-path`.
    package let path: String
    package let description: ModelDescription
    /// The format of the KV cache, with any page size.
    package let format: CacheFormat
    let layers: [LayerWork]
    /// The work of one layer of the next-token block, where the checkpoint has any.
    let draftLayer: LayerWork?
    /// Elements of all its weights.
    package let parameters: Int
    /// Of each layer its place in `layers`.
    let kinds: [Int]

    package init(_ name: String, path: String, _ description: ModelDescription, format: CacheFormat) {
        self.name = name
        self.path = path
        self.description = description
        self.format = format
        parameters = description.parameters.total
        let first = description.layerKinds.map { kind in description.layers.firstIndex { $0.kind == kind.kind }! }
        layers = first.map { LayerWork(description.layers[$0], format.layers[$0]) }
        kinds = description.layers.map { layer in
            first.firstIndex { description.layers[$0].kind == layer.kind }!
        }
        draftLayer = description.draftLayers.first.map { LayerWork($0, format.layers[description.layers.count - 1]) }
    }

    package var formats: WeightFormats { description.formats }

    /// How the matrices of layers are kept that are not experts'.
    package var weights: Hardware.ElementType { Hardware.ElementType(formats.products.dtype) }

    /// The number of layers of each kind among some.
    func counts(_ range: Range<Int>) -> [Int] {
        var counts = Array(repeating: 0, count: layers.count)
        for layer in range { counts[kinds[layer]] += 1 }
        return counts
    }
}

/// What one layer of a kind computes and reads, before ranks divide it.
struct LayerWork: Sendable {
    /// Elements of matrices that every rank has for its own rows, those that are quantized and those that never are.
    private(set) var whole = 0.0
    private(set) var plain = 0.0
    /// Elements of matrices that ranks divide by heads.
    private(set) var heads = 0.0
    /// Elements of plain feed-forwards, which ranks may divide by columns.
    private(set) var dense = 0.0
    /// Elements of norms and biases.
    private(set) var vectors = 0.0
    let experts: LayerDescription.Experts?
    /// Elements of one routed expert.
    let expertElements: Double
    let attention: LayerDescription.Attention?
    let selection: LayerDescription.Selection?
    /// Operations of one row and key.
    let attentionPerKey: Double
    let indexPerKey: Double
    /// Operations of one row's attention to a key that is expanded to heads, and of expanding one key.
    let expandedPerKey: Double
    let expansion: Double
    /// Bytes of one token's keys that attention reads, and those that index scores read; windows are not among them.
    let attentionBytes: Double
    let indexBytes: Double
    /// Bytes of a key that attention reads in the window.
    let windowKeyBytes: Double
    /// Bytes of one token in all key sets that have a window.
    let windowBytes: Double

    init(_ layer: LayerDescription, _ sets: [KeySet]) {
        experts = layer.experts
        expertElements = layer.experts.map { Double($0.expert(0).weights.elements) } ?? 0
        attention = layer.attention
        selection = layer.selection
        attentionPerKey = layer.attention.map(FloatingPointOperations.perKey) ?? 0
        indexPerKey = layer.selection.map(FloatingPointOperations.perKey) ?? 0
        // The product that makes keys and values of heads out of a latent.
        let up = layer.products.first { $0.weights.split == .heads && $0.inputs == layer.attention?.latentWidth }
        expansion = up.map { 2 * Double($0.weights.elements) } ?? 0
        expandedPerKey =
            up.map { product in
                Double(2 * (product.outputs + layer.attention!.heads * layer.attention!.ropeWidth))
            } ?? attentionPerKey
        (indexBytes, attentionBytes) = layer.keyBytes(sets)
        let windows = sets.filter { $0.window != nil }.map { Double($0.bytesPerEntry) }
        (windowKeyBytes, windowBytes) = (windows.first ?? 0, windows.reduce(0, +))
        for operation in layer.operations {
            switch operation {
            case .vectors(let weights): vectors += Double(weights.elements)
            case .product(let product): add(product.weights)
            case .feedForward(let feedForward): add(feedForward.weights)
            case .publish, .cross, .select, .reuseSelection, .attend, .dispatch, .experts: break
            }
        }
    }

    private mutating func add(_ weights: LayerDescription.Weights) {
        switch weights.split {
        case .heads: heads += Double(weights.elements)
        case .dense: dense += Double(weights.elements)
        case .whole, .vocabulary, .expert:
            if weights.isQuantized { whole += Double(weights.elements) } else { plain += Double(weights.elements) }
        }
    }

    /// Bytes that attention of rows reads which see `first`, `first` + 1, … `last` tokens, if each reads its own.
    func attendedBytes(_ first: Int, _ last: Int) -> Double {
        guard let attention else { return 0 }
        let entry = attentionBytes * Double(attention.tokensPerEntry)
        return FloatingPointOperations.windowKeys(first, last, attention) * windowKeyBytes
            + FloatingPointOperations.attendedEntries(first, last, attention) * entry
    }

    /// Bytes of one token's keys.
    var keyBytes: Double { attentionBytes + indexBytes }
}
