package import Modeling
import Planning
import Tensors

/// Kernel shapes are the sizes of a model's operations on one of the ranks that share its heads, its experts and its
/// output matrix.
package struct KernelShapes {
    let model: ModelDescription
    let attention: LayerDescription.Attention
    let selection: LayerDescription.Selection?
    let routed: LayerDescription.Experts
    /// The number of attention heads of one rank. The indexer's heads are never divided.
    package let heads: Int
    /// The number of experts of one rank.
    package let experts: Int
    private let ranks: Int

    /// - Parameter ranks: The number of ranks that share the model; 1 for all of it.
    package init(_ model: ModelDescription, ranks: Int) throws {
        guard let attention = model.attention, let routed = model.experts else {
            throw CommandError("\(model.modelType) has no attention or no experts to measure")
        }
        let (heads, experts) = (attention.heads, routed.gate.experts)
        guard ranks > 0, heads % ranks == 0, experts % ranks == 0 else {
            let nearest = (1...max(ranks, 1)).last { heads % $0 == 0 && experts % $0 == 0 } ?? 1
            throw CommandError(
                "--tp-size: \(ranks) ranks cannot share \(heads) heads and \(experts) experts evenly; try \(nearest)")
        }
        self.model = model
        self.attention = attention
        self.routed = routed
        self.ranks = ranks
        selection = model.selection
        self.heads = heads / ranks
        self.experts = experts / ranks
    }

    /// A matrix product of a layer: for each row, `outputs` sums of `inputs` products.
    struct Product {
        let name: String
        let outputs: Int
        let inputs: Int
    }

    /// The most expensive products of one rank in a layer with experts, and one of an expert.
    var products: [Product] {
        let measured: Set = ["query up", "key down", "output", "index query"]
        let layer = model.layers.first { $0.experts != nil }!
        return layer.products.filter { measured.contains($0.name) }.map { product in
            let share = product.weights.split == .heads ? ranks : 1
            return product.name == "output"
                ? Product(name: product.name, outputs: product.outputs, inputs: product.inputs / share)
                : Product(name: product.name, outputs: product.outputs / share, inputs: product.inputs)
        } + [Product(name: "expert gate", outputs: routed.width, inputs: routed.hidden)]
    }

    /// The number of elements of a head's query before its rotary part.
    var nopeWidth: Int {
        let queries = model.layers.lazy.flatMap(\.products).first { $0.name == "query up" }
        return (queries?.outputs ?? 0) / attention.heads - attention.ropeWidth
    }
}
