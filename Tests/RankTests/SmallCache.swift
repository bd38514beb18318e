import Inference
import Parallelism

extension EngineConfiguration {
    /// Creates ranks with a cache of pages of four tokens, so that a golden prompt has many pages.
    ///
    /// - Parameter alignment: The number of tokens of the model's longest entry; pages have at least as many.
    init(smallCache parallel: ParallelConfiguration, tokens: Int = 1024, alignment: Int = 1) {
        self.init()
        self.parallel = parallel
        pageSize = max(4, alignment)
        maxTotalTokens = tokens
    }
}
