package import KVCache
package import Parallelism
package import Tensors

/// A model: one forward pass, written for one rank, over rows with positions.
package protocol Model: AnyObject, Sendable {
    /// The model as numbers: layers, shapes, legal degrees of parallelism.
    var description: ModelDescription { get }
    /// The number of tokens that logits score.
    var vocabularySize: Int { get }
    /// Returns the key sets of every layer, as a cache of this type keeps them.
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
    /// follow the rows. Only ranks of the last stage may call it; it traps if `canDraft` is false.
    ///
    /// - Parameters:
    ///   - states: `[step.own.count, draftStateWidth]`, in their first `stateWidth` columns the final states of the own
    ///     rows; they become the block's own, whose logits score the token that follows the one in `step.tokens`.
    ///   - continues: false if these are the model's states, true if an earlier call made them, whose rows these follow.
    /// - Throws: `GroupFailure` when a rank fails, this one or another.
    func draft(_ step: Step, _ seat: Seat, states: View, continues: Bool) throws(GroupFailure)
    /// The number of elements of a row's state while tokens are drafted: `stateWidth`, and what the block reuses of the
    /// row's first call when it continues.
    var draftStateWidth: Int { get }
    /// Computes the logits of some tokens of the vocabulary, `[rows, vocabulary.count]`, from final states.
    func logits(_ hidden: View, vocabulary: Range<Int>, _ seat: Seat, into logits: View)
    /// Computes logits from the states that `draft` has made, in their first `stateWidth` columns. It traps if `canDraft`
    /// is false.
    func draftLogits(_ states: View, vocabulary: Range<Int>, _ seat: Seat, into logits: View)
}

extension Model {
    package var vocabularySize: Int { description.vocabularySize }
    package var contextLength: Int { description.contextLength }
    /// The number of elements of a row's state between layers, which pipeline stages, outputs and the next-token block
    /// carry.
    package var stateWidth: Int { description.stateWidth }
    package var parallelShape: ModelShape { description.parallelShape }
    /// The number of consecutive positions that stay together: the tokens of the longest entry of the model's key sets.
    /// Page sizes are multiples of it, and a rank owns positions in aligned runs of it.
    package var positionAlignment: Int { cacheFormat(.float32, pageSize: CacheFormat.maxPageSize).positionAlignment }

    package var canDraft: Bool { false }
    package var draftStateWidth: Int { stateWidth }
    package func draft(_ step: Step, _ seat: Seat, states: View, continues: Bool) throws(GroupFailure) {
        preconditionFailure("a model without a next-token block was asked to draft")
    }
    package func draftLogits(_ states: View, vocabulary: Range<Int>, _ seat: Seat, into logits: View) {
        self.logits(states, vocabulary: vocabulary, seat, into: logits)
    }
}
