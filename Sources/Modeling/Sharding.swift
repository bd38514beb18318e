package import Parallelism

/// Where the pieces of a DeepSeek layer live: declared once, beside the model and apart from it.
///
/// Between sublayers every row of a stage has exactly one owner, also among the ranks that share heads. So norms,
/// projections into the latent space, routing and plain feed-forwards are never computed twice; only what is per head
/// needs the rows of all of a context rank's tensor ranks.
package enum Sharding {
    private static let owned = Layout(rows: .stage)
    private static let perContext = Layout(rows: [.data, .context])
    /// Where the columns of a plain feed-forward are not shared, `dense` is nobody and these two are the same.
    private static let ownedForDense = Layout(rows: [.data, .context, .dense])

    /// Latents, rotary keys and index keys: computed by the row's owner, read by every rank of its data group.
    package static let keys = Edge("keys", from: owned, to: Layout(rows: .data))
    /// The compressed query, from which each tensor rank makes its heads' queries.
    package static let query = Edge("query", from: owned, to: perContext)
    /// The positions each row attends to: chosen by the row's owner, the same for all heads.
    package static let selection = Edge("selection", from: owned, to: perContext)
    /// The output projection leaves one addend per tensor rank.
    package static let attentionOutput = Edge(
        "attention output", from: Layout(rows: [.data, .context], owes: .tensor), to: owned)
    package static let feedForwardInput = Edge("feed-forward input", from: ownedForDense, to: perContext)
    /// So does the down projection of a dense layer or of the shared experts.
    package static let feedForwardOutput = Edge(
        "feed-forward output", from: Layout(rows: [.data, .context], owes: .dense), to: ownedForDense)
    /// Rows on their way to the routed experts, when all ranks see all rows.
    package static let dispatch = Edge("dispatch", from: owned, to: Layout())

    /// All of them, in the order in which a layer crosses them.
    package static let edges = [
        keys, query, selection, attentionOutput, feedForwardInput, feedForwardOutput, dispatch,
    ]
}
