package import Parallelism

/// The edges of a DeepSeek layer, which say how the rows of its values are split over ranks. They are declared once,
/// beside the model.
///
/// Between sublayers every row of a stage has exactly one owner, also among the ranks that share heads. Norms,
/// projections into the latent space, routing and plain feed-forwards are therefore never computed twice; only what is
/// per head needs the rows of all tensor ranks of a context rank.
package enum Sharding {
    private static let owned = Layout(rows: .stage)
    private static let perContext = Layout(rows: [.data, .context])
    /// Along `.dense` there is only one rank if plain feed-forwards are not sharded; this layout is then the same as
    /// `perContext`.
    private static let ownedForDense = Layout(rows: [.data, .context, .dense])

    /// The edge of published keys: the row's owner computes them, and every rank of its data group reads them.
    package static let keys = Edge("keys", from: owned, to: Layout(rows: .data))
    /// The edge of the compressed query, from which each tensor rank computes its heads' queries.
    package static let query = Edge("query", from: owned, to: perContext)
    /// The edge of selections: the row's owner selects the entries that the row attends to, the same for all heads.
    package static let selection = Edge("selection", from: owned, to: perContext)
    /// The edge of the attention output: the output projection leaves one addend per tensor rank.
    package static let attentionOutput = Edge(
        "attention output", from: Layout(rows: [.data, .context], owes: .tensor), to: owned)
    package static let feedForwardInput = Edge("feed-forward input", from: ownedForDense, to: perContext)
    /// The edge of a feed-forward's output: the down projection of a dense layer or of the shared experts leaves one
    /// addend per rank along `.dense`.
    package static let feedForwardOutput = Edge(
        "feed-forward output", from: Layout(rows: [.data, .context], owes: .dense), to: ownedForDense)
    /// The edge of the gathered dispatch, after which every rank has all rows for its routed experts.
    package static let dispatch = Edge("dispatch", from: owned, to: Layout())
}
