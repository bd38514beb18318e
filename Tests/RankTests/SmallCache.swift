import Inference
import Parallelism

extension EngineConfiguration {
    /// Ranks with a cache that tests fill: pages of four tokens, so that a golden prompt has many.
    init(smallCache parallel: ParallelConfiguration, tokens: Int = 1024) {
        self.init()
        self.parallel = parallel
        pageSize = 4
        maxTotalTokens = tokens
    }
}
