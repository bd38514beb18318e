import Checkpoints
import KVCache
import Modeling
import Parallelism
import Tensors

/// The lightning indexer: a cheap attention over index keys, which a compressor of its own makes, whose scores select
/// the entries that the main attention reads.
struct Indexer {
    let compressor: Compressor
    private let queryUp: Weight
    private let headWeights: Weight
    private let configuration: DeepSeekV4Configuration.IndexerConfiguration
    private let ropeWidth: Int

    init(
        _ model: DeepSeekV4Configuration, _ source: WeightSource, _ prefix: String, _ kind: LayerKind
    ) throws(CheckpointError) {
        configuration = model.indexer
        ropeWidth = model.ropeWidth
        let (heads, width) = (configuration.heads, configuration.width)
        queryUp = try source.matrix(prefix + "wq_b.weight", heads * width, model.queryRank)
        headWeights = try source.matrix(prefix + "weights_proj.weight", heads, model.hiddenSize)
        compressor = try Compressor(model, source, prefix + "compressor.", kind, width: width)
    }

    var width: Int { configuration.width }
    /// The largest number of entries that a row selects.
    var topK: Int { configuration.topK }

    /// Computes index queries from the compressed query, and head weights from the layer's input.
    ///
    /// - Parameter keySet: the key set that has the index keys.
    func query(
        _ x: View, compressed: View, _ angles: RotaryAngles, _ keySet: KeySetID, _ step: Step, _ seat: Seat
    ) -> IndexQuery {
        let (heads, nope) = (configuration.heads, width - ropeWidth)
        seat.work.indexed += x.rows
        let queries = seat.scratch.rows(x.rows, heads * width)
        let weights = seat.scratch.rows(x.rows, heads)
        seat.kernels.matmul(compressed, queryUp, into: queries, seat.scratch)
        seat.kernels.rope(
            queries.columns(nope..<queries.columns), heads: heads, headStride: width, interleaved: true, angles)
        spread(queries, heads: heads, keySet, step, seat)
        seat.kernels.inF32.matmul(x, headWeights, into: weights, seat.scratch)
        seat.kernels.scale(weights, by: 1 / Float(heads).squareRoot() / Float(width).squareRoot())
        return IndexQuery(
            queries: queries, weights: weights, topK: configuration.topK, set: keySet, lane: KeySets.index)
    }

    /// Applies `Kernels.spreadIndex` as the cache of the index keys needs it.
    func spread(_ x: View, heads: Int, _ keySet: KeySetID, _ step: Step, _ seat: Seat) {
        seat.kernels.spreadIndex(x, heads: heads, for: step.cache.format[keySet].lanes[KeySets.index].dtype)
    }
}
