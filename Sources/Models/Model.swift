package import KVCache
package import Parallelism
package import Tensors

/// A model: one forward, written for one rank, over rows with positions.
package protocol Model: AnyObject, Sendable {
    var vocabularySize: Int { get }
    /// Positions the model was made for.
    var contextLength: Int { get }
    /// What the cache keeps of a token.
    func cacheFormat(_ dtype: DType, pageSize: Int) -> CacheFormat
    /// Runs the step's rows through all layers, storing their keys.
    ///
    /// - Parameter hidden: `[step.outputs.count, hiddenSize]`, the final-normed states of the rows that need logits.
    func forward(_ step: Step, _ seat: Seat, into hidden: View)
    var hiddenSize: Int { get }
    /// `[rows, vocabularySize]` from final-normed states.
    func logits(_ hidden: View, _ seat: Seat, into logits: View)
}
