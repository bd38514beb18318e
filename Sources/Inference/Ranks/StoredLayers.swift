package import Dispatch
package import KVCache
package import Parallelism
import Synchronization

/// Stored layers tell, in the middle of a step, of how many layers the ranks of this process have stored the keys, so
/// that a prefill server can send them while the ranks compute later layers.
package final class StoredLayers: Sendable {
    /// The watermark of each rank of this process, in their order.
    package let watermarks: [KeyWatermark]
    private let ranks: Range<Int>
    private let configuration: ParallelConfiguration
    private let layers: Int
    private let news: News

    /// True if a rank has given an alert that nobody has taken yet.
    private final class News: Sendable {
        let isAny = Atomic(false)
    }

    /// - Parameters:
    ///   - layers: the number of the model's layers. Further layers of the cache belong to the last stage.
    ///   - bell: is signalled when a rank that is awaited has stored the keys of more layers.
    package init(
        ranks: Range<Int>, _ configuration: ParallelConfiguration, layers: Int, _ format: CacheFormat,
        _ bell: DispatchSemaphore
    ) {
        self.ranks = ranks
        self.configuration = configuration
        self.layers = layers
        let news = News()
        self.news = news
        watermarks = ranks.map { _ in
            KeyWatermark(interval: format.layerGroup) {
                news.isAny.store(true, ordering: .releasing)
                bell.signal()
            }
        }
    }

    /// Returns the number of layers, from the first one on, of which all entries that a step computes in a data group
    /// are final, as far as this process keeps them. Layers of stages without ranks in this process count as stored,
    /// because it keeps none of their entries.
    package func count(step: Int, group: Int) -> Int {
        let size = configuration.context * configuration.tensor
        for stage in 0..<configuration.pipeline {
            let first = stage * configuration.stageRanks + group * size
            let own = (first..<first + size).clamped(to: ranks)
            guard let least = own.map({ watermarks[$0 - ranks.lowerBound].layers(of: step) }).min() else { continue }
            let range = configuration.layers(ofStage: stage, total: layers)
            let isLast = stage == configuration.pipeline - 1
            if isLast || least < range.upperBound { return max(least, range.lowerBound) }
        }
        return layers
    }

    /// Asks for an alert when ranks have stored the keys of more layers. It must be called before `count`.
    package func awaitMore() { for watermark in watermarks { watermark.awaitNext() } }

    /// Returns whether there was an alert since the last call.
    package func takeNews() -> Bool { news.isAny.exchange(false, ordering: .acquiring) }
}
