package import DeepSeekV32
package import Modeling
import Tensors

/// The sizes of a model's operations on one of the ranks that share its heads, its experts and its output matrix.
package struct KernelShapes {
    let model: DeepSeekConfiguration
    /// Heads of latent attention, and experts, of one rank. The indexer's heads are never shared.
    package let heads: Int
    package let experts: Int

    /// - Parameter ranks: 1 for the whole model.
    package init(_ model: DeepSeekConfiguration, ranks: Int) throws {
        let experts = model.experts.gate.experts
        guard ranks > 0, model.heads % ranks == 0, experts % ranks == 0 else {
            throw CommandError(
                "--tp-size: \(ranks) ranks cannot share \(model.heads) heads and \(experts) experts evenly; try "
                    + "\(Self.largestShare(model, below: ranks))")
        }
        self.model = model
        heads = model.heads / ranks
        self.experts = experts / ranks
    }

    private static func largestShare(_ model: DeepSeekConfiguration, below ranks: Int) -> Int {
        (1...max(ranks, 1)).last { model.heads % $0 == 0 && model.experts.gate.experts % $0 == 0 } ?? 1
    }

    /// A matrix product of a layer: `outputs` chains of `inputs` products for each row.
    struct Product {
        let name: String
        let outputs: Int
        let inputs: Int
    }

    /// Those where most of the time goes, and a narrow one.
    var products: [Product] {
        var products = [
            Product(name: "query up", outputs: heads * (model.nopeWidth + model.ropeWidth), inputs: model.queryRank),
            Product(name: "key down", outputs: model.latentWidth + model.ropeWidth, inputs: model.hiddenSize),
            Product(name: "output", outputs: model.hiddenSize, inputs: heads * model.valueWidth),
            Product(name: "expert gate", outputs: model.experts.width, inputs: model.hiddenSize),
        ]
        if let indexer = model.indexer {
            let outputs = indexer.heads * indexer.width
            products.append(Product(name: "index query", outputs: outputs, inputs: model.queryRank))
        }
        return products
    }
}
