package import KVCache
package import Parallelism
package import Tensors

/// A model: one forward, written for one rank, over rows with positions.
package protocol Model: AnyObject, Sendable {
    /// The model as numbers: layers, shapes, legal degrees of parallelism.
    var description: ModelDescription { get }
    /// The number of tokens that logits score.
    var vocabularySize: Int { get }
    /// The key sets of every layer, as a cache of this type keeps them.
    func cacheFormat(_ type: CacheType, pageSize: Int) -> CacheFormat
    /// Runs the step's rows through the layers of this rank's stage, storing their keys.
    ///
    /// - Parameter hidden: `[step.outputs.count, stateWidth]`; in the last stage it becomes the states of the rows that
    ///   need logits, as `logits` and `draft` read them.
    /// - Throws: `GroupFailure` when a rank fails, this one or another.
    func forward(_ step: Step, _ seat: Seat, into hidden: View) throws(GroupFailure)
    /// True if a next-token block is loaded, so that the model can draft tokens for speculative decoding.
    var canDraft: Bool { get }
    /// Runs the step's own rows through the next-token block, storing its keys. `step.tokens` are the tokens that
    /// follow the rows. To be called on the ranks of the last stage; traps where `canDraft` is false.
    ///
    /// - Parameter states: `[step.own.count, stateWidth]`, the final states of the own rows, this block's or the model's;
    ///   they become the block's own, whose logits say which token follows the one in `step.tokens`.
    /// - Throws: `GroupFailure` when a rank fails, this one or another.
    func draft(_ step: Step, _ seat: Seat, states: View) throws(GroupFailure)
    /// Logits of some tokens of the vocabulary, `[rows, vocabulary.count]`, from final states.
    func logits(_ hidden: View, vocabulary: Range<Int>, _ seat: Seat, into logits: View)
}

extension Model {
    package var vocabularySize: Int { description.vocabularySize }
    package var contextLength: Int { description.contextLength }
    /// Elements of a row's state between layers: what pipeline stages, outputs and the next-token block carry.
    package var stateWidth: Int { description.stateWidth }
    package var parallelShape: ModelShape { description.parallelShape }
    /// Consecutive positions that stay together: the tokens of the longest entry of its key sets. Pages are multiples of
    /// them, and so are, inside a chunk, the runs of positions that a rank owns.
    package var positionAlignment: Int { cacheFormat(.float32, pageSize: CacheFormat.maxPageSize).positionAlignment }

    package var canDraft: Bool { false }
    package func draft(_ step: Step, _ seat: Seat, states: View) throws(GroupFailure) {
        preconditionFailure("a model without a next-token block was asked to draft")
    }
}
