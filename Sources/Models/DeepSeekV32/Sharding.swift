package import Parallelism

/// Where the pieces of a DeepSeek layer live: declared once, beside the model and apart from it.
package enum Sharding {
    private static let rows = Layout(rows: [.data, .context])

    /// Rotary keys, latents and index keys: computed by whoever has the row, needed by every context rank.
    package static let keys = Edge(from: rows, to: Layout(rows: [.data]))
    /// The output projection leaves one addend per tensor rank.
    package static let attentionOutput = Edge(from: Layout(rows: [.data, .context], owes: .tensor), to: rows)
    /// So does the down projection.
    package static let feedForwardOutput = Edge(from: Layout(rows: [.data, .context], owes: .tensor), to: rows)
}
