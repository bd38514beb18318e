package import KVCache
package import Parallelism
package import Tensors

/// One layer as numbers: its operations in the order of the forward pass, with their shapes, their weights, and the
/// edges between them.
///
/// Costs, weight shares, floating-point counts, drawings and kernel benchmarks are derived from it, so that nothing
/// describes a layer a second time.
package struct LayerDescription: Sendable {
    /// A word for layers that have the same operations and shapes, such as "dense" or "experts".
    package let kind: String
    package let operations: [Operation]

    package init(kind: String, operations: [Operation]) {
        self.kind = kind
        self.operations = operations
    }

    /// One operation of a layer, or one edge between two.
    package enum Operation: Sendable {
        /// Norms, biases and other vectors, which every rank reads for its own rows.
        case vectors(Weights)
        /// A matrix product of rows.
        case product(Product)
        /// Stores rows' keys, or the entries that rows complete, in one of the layer's key sets, and makes them readable
        /// for the ranks along the edge.
        case publish(Edge, columns: Int, set: Int = 0)
        /// Sends rows from rank to rank over the edge.
        case cross(Edge, columns: Int)
        case select(Selection)
        /// Gathers the selection that an earlier layer made for the rows.
        case reuseSelection(topK: Int)
        case attend(Attention)
        case feedForward(FeedForward)
        /// Sends rows to the ranks of the experts they chose.
        case dispatch(Experts)
        /// Computes routed experts and sends their sums to the rows' owners.
        case experts(Experts)
    }

    /// The way in which the ranks of a stage divide weights.
    package enum Split: Sendable, Equatable {
        /// Every rank reads all of them, for its own rows.
        case whole
        /// Attention heads, over the tensor ranks.
        case heads
        /// Columns of a plain feed-forward, over the ranks along `.dense`.
        case dense
        /// One routed expert, whose columns may be divided along `.expertTensor`.
        case expert(Int)
        /// Rows of the output head, over all ranks of the last stage.
        case vocabulary
    }

    /// Tensors that ranks divide alike.
    package struct Weights: Sendable {
        /// The checkpoint's tensors, without those of scales.
        package let tensors: [Tensor]
        /// The number of elements in all of them.
        package let elements: Int
        package let split: Split
        /// True if a quantized checkpoint quantizes these weights. Vectors, the vocabulary, and matrices that
        /// decide on few numbers, such as a router's, never are.
        package let isQuantized: Bool

        /// The name of a tensor, and its shape, in which a pair of FP4 elements counts as two.
        package typealias Tensor = (name: String, shape: [Int])

        package init(_ tensors: [Tensor], split: Split = .whole, isQuantized: Bool = false) {
            self.tensors = tensors
            self.split = split
            self.isQuantized = isQuantized
            elements = tensors.reduce(0) { $0 + $1.shape.reduce(1, *) }
        }

        package var names: [String] { tensors.map(\.name) }
    }

    /// A matrix product, `[rows, inputs] · [outputs, inputs]ᵀ`.
    package struct Product: Sendable {
        /// The name that reports and benchmarks show, such as "query up".
        package let name: String
        package let inputs: Int
        package let outputs: Int
        package let weights: Weights

        package init(
            _ name: String, _ tensor: String, inputs: Int, outputs: Int, split: Split = .whole, isQuantized: Bool = true
        ) {
            self.name = name
            self.inputs = inputs
            self.outputs = outputs
            weights = Weights([(tensor, [outputs, inputs])], split: split, isQuantized: isQuantized)
        }
    }

    /// An indexer that selects the keys a row attends to.
    package struct Selection: Sendable, Equatable {
        package let heads: Int
        /// The number of elements of an index query and of an index key.
        package let width: Int
        /// The number of keys a row attends to, at most.
        package let topK: Int
        /// The number of tokens that a key covers.
        package let tokensPerEntry: Int

        package init(heads: Int, width: Int, topK: Int, tokensPerEntry: Int = 1) {
            (self.heads, self.width, self.topK, self.tokensPerEntry) = (heads, width, topK, tokensPerEntry)
        }

        /// The first position whose row selects, because it sees more than `topK` keys.
        package var firstPosition: Int { (topK + 1) * tokensPerEntry - 1 }
    }

    /// Attention of `heads` queries over keys that all heads share.
    package struct Attention: Sendable, Equatable {
        package let heads: Int
        /// The number of elements of a key that are also its value.
        package let latentWidth: Int
        /// The number of rotary elements of a key.
        package let ropeWidth: Int
        /// How an FP8 cache keeps the latent part of a key; it keeps rotary elements in BF16.
        package let latentRounding: KeySet.FP8Rounding
        /// The number of elements of a value: those of `latentWidth`, and in some models the rotary ones.
        package let valueWidth: Int
        /// The number of keys a row attends to, at most; `nil` for all that it sees. Those of the window are not among
        /// them.
        package let topK: Int?
        /// The number of tokens whose keys a row attends to besides; 0 if there is no such window.
        package let window: Int
        /// The number of tokens that a key covers outside the window; 0 if there are no such keys.
        package let tokensPerEntry: Int

        /// - Parameter valuesIncludeRotary: whether rotary elements of a key are also part of its value.
        package init(
            heads: Int, latentWidth: Int, ropeWidth: Int, latentRounding: KeySet.FP8Rounding,
            valuesIncludeRotary: Bool = false, topK: Int?, window: Int = 0, tokensPerEntry: Int = 1
        ) {
            self.latentRounding = latentRounding
            (self.heads, self.latentWidth, self.ropeWidth, self.topK) = (heads, latentWidth, ropeWidth, topK)
            (self.window, self.tokensPerEntry) = (window, tokensPerEntry)
            valueWidth = latentWidth + (valuesIncludeRotary ? ropeWidth : 0)
        }
    }

    /// A feed-forward `down(silu(gate x) * up x)`, of a dense layer or of the shared experts.
    package struct FeedForward: Sendable {
        /// The name that drawings show: "feed-forward" or "shared experts".
        package let name: String
        package let hidden: Int
        package let width: Int
        package let weights: Weights

        /// - Parameter prefix: the part of the tensors' names before `names`.
        package init(
            _ name: String, prefix: String, _ names: FeedForwardNames = .projections, hidden: Int, width: Int,
            split: Split = .dense
        ) {
            self.name = name
            self.hidden = hidden
            self.width = width
            let shapes = [[width, hidden], [width, hidden], [hidden, width]]
            weights = Weights(Array(zip(names.tensors(prefix), shapes)), split: split, isQuantized: true)
        }
    }

    /// Routed experts: a router chooses some for each row.
    package struct Experts: Sendable {
        package let gate: GateRule
        package let hidden: Int
        /// The number of inner columns of one expert.
        package let width: Int
        private let prefix: String
        private let names: FeedForwardNames

        /// - Parameters:
        ///   - prefix: the part of the tensors' names before the expert's number.
        ///   - names: the names of an expert's matrices.
        package init(
            gate: GateRule, hidden: Int, width: Int, prefix: String, _ names: FeedForwardNames = .projections
        ) {
            (self.gate, self.hidden, self.width, self.prefix, self.names) = (gate, hidden, width, prefix, names)
        }

        /// Returns the weights of one expert.
        package func expert(_ number: Int) -> FeedForward {
            FeedForward(
                "expert", prefix: "\(prefix)\(number).", names, hidden: hidden, width: width, split: .expert(number))
        }
    }
}

extension LayerDescription {
    package var attention: Attention? {
        operations.lazy.compactMap { if case .attend(let attention) = $0 { attention } else { nil } }.first
    }

    package var selection: Selection? {
        operations.lazy.compactMap { if case .select(let selection) = $0 { selection } else { nil } }.first
    }

    package var experts: Experts? {
        operations.lazy.compactMap { if case .experts(let experts) = $0 { experts } else { nil } }.first
    }

    package var products: [Product] {
        operations.compactMap { if case .product(let product) = $0 { product } else { nil } }
    }

    /// All weights of the layer, operation by operation.
    package var weights: [Weights] { operations.flatMap(\.weights) }
}

extension LayerDescription.Operation {
    /// The weights that the operation reads.
    package var weights: [LayerDescription.Weights] {
        switch self {
        case .vectors(let weights): [weights]
        case .product(let product): [product.weights]
        case .feedForward(let feedForward): [feedForward.weights]
        case .experts(let experts): (0..<experts.gate.experts).map { experts.expert($0).weights }
        case .publish, .cross, .select, .reuseSelection, .attend, .dispatch: []
        }
    }

    /// The text by which a drawing of the layer shows the operation; `nil` for edges and vectors.
    package var title: String? {
        switch self {
        case .product(let product): product.name
        case .select: "index scores, top keys"
        case .attend: "attention"
        case .feedForward(let feedForward): feedForward.name
        case .experts: "routed experts"
        case .vectors, .publish, .cross, .reuseSelection, .dispatch: nil
        }
    }
}
