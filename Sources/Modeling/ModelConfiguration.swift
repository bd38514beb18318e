package import Checkpoints
package import KVCache

/// What a model's target makes of `config.json`, checked, before any weight is read.
///
/// A target conforms one type to it and is then one line in `ModelRegistry`.
package protocol ModelConfiguration: Sendable {
    /// The values of `model_type` that this target reads.
    static var modelTypes: [String] { get }

    /// Reads and checks a configuration file's contents.
    ///
    /// - Throws: `CheckpointError` naming the key, what was found and what is legal.
    init(_ file: ConfigurationValue) throws(CheckpointError)

    /// The model as numbers.
    var description: ModelDescription { get }

    /// The key sets of every layer, as a cache of this type keeps them.
    ///
    /// - Parameter drafts: true to include the layers of the next-token block, after the others.
    func cacheFormat(_ type: CacheType, pageSize: Int, drafts: Bool) -> CacheFormat

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
