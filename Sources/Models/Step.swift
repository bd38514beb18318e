package import KVCache
package import Tensors

/// One rank's view of a step: rows with positions, and where their keys are. Nothing here says how many ranks there are.
package struct Step {
    /// Input tokens, one a row.
    package let tokens: Indices
    /// Each row's position in its own prompt.
    package let positions: Indices
    /// The cache entry that stores each row's keys; negative when another rank stores them.
    package let slots: Indices
    /// Which rows belong to which request, in row order.
    package let requests: [RequestRows]
    /// Rows whose hidden state leaves the last layer.
    package let outputs: Indices
    package let cache: CacheStore
    /// Records values stage by stage when parity is in question; `nil` in service.
    package let recorder: StageRecorder?

    /// Consecutive rows of one request, with the pages of all its positions so far.
    package struct RequestRows {
        package let rows: Range<Int>
        package let pages: PageMap
        package init(rows: Range<Int>, pages: PageMap) {
            self.rows = rows
            self.pages = pages
        }
    }

    package init(
        tokens: Indices, positions: Indices, slots: Indices, requests: [RequestRows], outputs: Indices,
        cache: CacheStore, recorder: StageRecorder? = nil
    ) {
        precondition(tokens.count == positions.count && tokens.count == slots.count, "a row has a token and a slot")
        precondition(requests.map(\.rows.count).reduce(0, +) == tokens.count, "every row belongs to a request")
        self.tokens = tokens
        self.positions = positions
        self.slots = slots
        self.requests = requests
        self.outputs = outputs
        self.cache = cache
        self.recorder = recorder
    }

    package var rows: Int { tokens.count }
}
