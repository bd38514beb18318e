import Checkpoints
import KVCache
import Modeling
import Parallelism
import Tensors

/// The lightning indexer: a cheap attention whose scores select the keys that the main attention reads.
struct Indexer {
    private let queryUp: Weight
    private let key: Weight
    private let keyNorm: Vector
    private let keyBias: Vector
    private let headWeights: Weight
    private let configuration: DeepSeekConfiguration.IndexerConfiguration

    init(
        _ configuration: DeepSeekConfiguration.IndexerConfiguration, _ model: DeepSeekConfiguration,
        _ source: WeightSource, layer: Int
    ) throws(CheckpointError) {
        self.configuration = configuration
        let (heads, width) = (configuration.heads, configuration.width)
        func name(_ name: String) -> String { WeightNames.attention(layer, "indexer." + name) }
        queryUp = try source.matrix(name("wq_b.weight"), heads * width, model.queryRank)
        key = try source.matrix(name("wk.weight"), width, model.hiddenSize)
        keyNorm = try source.vector(name("k_norm.weight"), width, dummy: 1)
        keyBias = try source.vector(name("k_norm.bias"), width, dummy: 0)
        headWeights = try source.matrix(name("weights_proj.weight"), heads, model.hiddenSize)
    }

    var width: Int { configuration.width }
    /// The largest number of keys that a row selects.
    var topK: Int { configuration.topK }

    /// Computes the index key of each row, `[rows, width]`: LayerNorm, then RoPE on its first elements.
    ///
    /// - Parameter dtype: the element type in which the cache keeps index keys.
    func keys(_ x: View, _ angles: RotaryAngles, keptAs dtype: DType, _ seat: Seat, into out: View) {
        seat.kernels.matmul(x, key, into: out, seat.scratch)
        seat.kernels.layerNorm(out, keyNorm.view, keyBias.view, epsilon: 1e-6, into: out)
        seat.kernels.rope(
            out, heads: 1, headStride: width, interleaved: configuration.interleaved, angles)
        seat.kernels.spreadIndex(out, heads: 1, for: dtype)
    }

    /// Computes index queries from the compressed query, and head weights from the layer's input.
    ///
    /// - Parameter keySet: the key set that has the index keys.
    func query(
        _ x: View, compressed: View, _ angles: RotaryAngles, _ keySet: KeySetID, _ step: Step, _ seat: Seat
    ) -> IndexQuery {
        let dtype = step.cache.format[keySet].lanes[KeyLanes.index].dtype
        let heads = configuration.heads
        seat.work.indexed += x.rows
        let queries = seat.scratch.rows(x.rows, heads * width)
        let weights = seat.scratch.rows(x.rows, heads)
        seat.kernels.matmul(compressed, queryUp, into: queries, seat.scratch)
        seat.kernels.rope(
            queries, heads: heads, headStride: width, interleaved: configuration.interleaved, angles)
        seat.kernels.spreadIndex(queries, heads: heads, for: dtype)
        seat.kernels.inF32.matmul(x, headWeights, into: weights, seat.scratch)
        seat.kernels.scale(weights, by: 1 / Float(heads).squareRoot() / Float(width).squareRoot())
        return IndexQuery(
            queries: queries, weights: weights, topK: configuration.topK, set: keySet, lane: KeyLanes.index)
    }
}
