import Checkpoints
import Disaggregation
package import Inference
import KVCache
package import Modeling
import Parallelism
import Tensors

/// A prefix key names everything besides tokens and salt that the bytes of a stored block depend on. Blocks with
/// different keys have different names, so that servers of different models may use one directory.
///
/// The key contains neither layout nor page size, as no key depends on them, unless the layout is one whose sums are
/// rounded in another order.
package struct PrefixKey: Sendable, Equatable, CustomStringConvertible {
    package let description: String
    /// SHA-256 of `description`.
    let digest: [UInt8]

    package init(_ description: String) {
        self.description = description
        var sum = SHA256()
        sum.update(Array(description.utf8))
        digest = sum.finish()
    }

    /// - Parameters:
    ///   - digest: identifies the model's files.
    ///   - blockTokens: the number of tokens of a block.
    package init(_ model: any Model, _ configuration: EngineConfiguration, digest: String, blockTokens: Int) {
        let layout = BlockLayout(model, configuration, blockTokens: blockTokens)
        let parallel = configuration.parallel
        self.init(
            [
                "blocks, version \(StoredBlock.version), of \(blockTokens) tokens", "model \(digest)",
                "numerics \(configuration.profile.name), version \(NumericsProfile.version)",
                layout.format.entries(ofLayers: layout.layers),
                // The keys of the next-token block also depend on the following token.
                configuration.drafts > 0 ? "positions named by the following token" : "positions named by their token",
                parallel.isBitwiseEqual(for: model.parallelShape) ? "bits of one rank" : "bits of \(parallel)",
            ].joined(separator: "\n"))
    }
}
