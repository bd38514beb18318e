package import Checkpoints
package import KVCache

/// The checked contents of a model's `config.json`, which are read before any weight.
///
/// A model's target conforms one type to it, and `ModelRegistry` has one line for the target.
package protocol ModelConfiguration: Sendable {
    /// The values of `model_type` that this target reads.
    static var modelTypes: [String] { get }

    /// Reads and checks a configuration file's contents.
    ///
    /// - Throws: `CheckpointError` naming the key, what was found and what is legal.
    init(_ file: ConfigurationValue) throws(CheckpointError)

    /// The model as numbers.
    var description: ModelDescription { get }

    /// Returns the key sets of every layer, as a cache of this type keeps them.
    ///
    /// - Parameter drafts: true to include the layers of the next-token block, after the others.
    func cacheFormat(_ type: CacheType, pageSize: Int, drafts: Bool) -> CacheFormat

    /// Returns the configuration of a model that has only some of the layers, in their order, and no next-token block: for
    /// benchmarks and tests of a model's real shape.
    ///
    /// - Parameter kept: numbers of layers, ascending. A layer that reuses an earlier one's selection needs that one.
    func keepingLayers(_ kept: [Int]) -> Self

    /// Returns a checkpoint's tensors under the names that this target reads, whatever of the names that it knows they have.
    ///
    /// - Throws: `CheckpointError` naming a tensor if the names are of several kinds.
    func named(_ weights: WeightIndex) throws(CheckpointError) -> WeightIndex

    /// Builds the model; weights stay where `source` has them.
    ///
    /// - Parameters:
    ///   - drafts: true to load the next-token block; `description.draftLayers` must not be empty then.
    ///   - progress: called with each layer's number when its weights are in place.
    /// - Throws: `CheckpointError` naming the tensor that is missing or does not fit the configuration.
    func model(
        _ source: WeightSource, drafts: Bool, progress: (Int) -> Void
    ) throws(CheckpointError) -> any Model
}

extension ModelConfiguration {
    /// Most targets know one kind of names.
    package func named(_ weights: WeightIndex) throws(CheckpointError) -> WeightIndex { weights }
}
