import Inference
import Parallelism

extension EngineConfiguration {
    /// Creates ranks with a cache of pages of four tokens, so that a golden prompt has many pages.
    init(smallCache parallel: ParallelConfiguration, tokens: Int = 1024) {
        self.init()
        self.parallel = parallel
        pageSize = 4
        maxTotalTokens = tokens
    }
}
