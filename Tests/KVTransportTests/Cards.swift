import Disaggregation
import KVCache
import Parallelism
import Tensors

/// Cards of two servers that can exchange keys, in layouts of their own.
enum Cards {
    static var prefill: ServerCard {
        card(pageSize: 64, ParallelConfiguration(context: 2, expert: 2, pipeline: 2, stageLayers: [1, 2]))
    }

    static var decode: ServerCard { card(pageSize: 16, ParallelConfiguration(tensor: 2)) }

    /// - Parameter index: the lane of index keys, if there is one.
    static func card(pageSize: Int, _ parallel: ParallelConfiguration, index: KeySet.Lane? = nil) -> ServerCard {
        let keys = KeySet("latent", [KeySet.Lane(.f32, width: 24), KeySet.Lane(.fp8, width: 256, group: 128)])
        let window = KeySet("window", [KeySet.Lane(.bf16, width: 8)], lifetime: .window(tokens: 12))
        let wide = KeySet(
            "compressed 4",
            [KeySet.Lane(.f32, width: 8), KeySet.Lane(.fp8, width: 448, group: 64, scaleType: .e8m0)]
                + (index.map { [$0] } ?? []),
            tokensPerEntry: 4, isReadByLaterLayers: true)
        let format = CacheFormat(layers: [[keys, window], [], [wide]], pageSize: pageSize)
        var card = ServerCard.empty
        card.numerics = "float32, version 1"
        card.model = "abc"
        card.placement = CachePlacement(format, parallel, processes: 1, layers: 3, isSharded: false)
        card.layers = 3
        card.vocabularySize = 200
        return card
    }
}
