package import KVCache
package import Tensors

/// One rank's view of a step: its rows with their positions, and where their keys are stored. It does not contain the
/// number of ranks.
package struct Step {
    /// The rows this rank owns, of which it computes everything that is not per head.
    package let own: Rows
    /// The input token of each own row.
    package let tokens: Indices
    /// The entries that own rows store, for each of the cache format's page groups.
    package let entries: [EntryRows]
    /// The window entries that ranks send each other, for each reach of the cache format's key sets with a window; empty
    /// where a rank is alone.
    package let windows: [WindowRows]
    /// The attended rows: those for whose heads this rank computes attention, which are its own rows and those of the
    /// ranks it shares heads with.
    package let attended: Rows
    /// The rows that use query-gather attention, of all ranks among which the keys are sharded; `nil` if there are
    /// none.
    package let dcpRows: DCPRows?
    /// The indices of the own rows whose logits are needed.
    package let outputs: Indices
    /// The cache of this process. It has all keys or, where processes shard the keys, those that its ranks own.
    package let cache: CacheStore
    /// The keys of key-gather attention; `nil` unless processes shard the keys.
    package let gatheredKeys: GatheredKeys?
    /// Records values stage by stage for parity tests; `nil` in service.
    package let recorder: StageRecorder?

    /// Some rows of a step, ordered by request.
    package struct Rows {
        /// The position of each row in its own request, ascending within a request.
        package let positions: Indices
        /// The rows of each request, in the order of the rows.
        package let requests: [RequestRows]
        /// The largest position; -1 if there is no row.
        package let maxPosition: Int

        package init(positions: Indices, requests: [RequestRows]) {
            precondition(
                requests.map(\.rows.count).reduce(0, +) == positions.count, "every row belongs to a request")
            self.positions = positions
            self.requests = requests
            maxPosition = (0..<positions.count).reduce(-1) { max($0, Int(positions[$1])) }
        }

        package var count: Int { positions.count }
    }

    /// The DCP rows: rows whose queries are sent to the owners of the keys.
    package struct DCPRows {
        /// The own rows of all ranks among which the keys are sharded, rank by rank.
        package let own: Rows
        /// The attended rows of all those ranks, rank by rank.
        package let attended: Rows
        /// The number of own rows and of attended rows of each of those ranks.
        package let ownCounts: Indices
        package let attendedCounts: Indices
        /// The indices of this rank's DCP rows in `Step.own` and in `Step.attended`.
        package let ownRows: Indices
        package let attendedRows: Indices

        package init(
            own: Rows, attended: Rows, ownCounts: Indices, attendedCounts: Indices, ownRows: Indices,
            attendedRows: Indices
        ) {
            self.own = own
            self.attended = attended
            self.ownRows = ownRows
            self.attendedRows = attendedRows
            self.ownCounts = ownCounts
            self.attendedCounts = attendedCounts
        }
    }

    /// The own rows that store an entry of the key sets of one page group, and the slots of those entries.
    package struct EntryRows {
        /// The indices of those own rows, ascending. With one token per entry, they are all own rows.
        package let rows: Indices
        /// The slot of each entry in its page.
        package let slots: Indices
        /// The number of rows that store an entry, for each rank of the stage.
        package let counts: [Int]

        package init(rows: Indices, slots: Indices, counts: [Int]) {
            precondition(rows.count == slots.count, "\(rows.count) rows for \(slots.count) slots")
            self.rows = rows
            self.slots = slots
            self.counts = counts
        }
    }

    /// The window entries of one reach that ranks of the data group send each other.
    package struct WindowRows {
        package let reach: WindowReach
        /// The number of entries that this rank needs of each rank of the data group.
        package let received: Indices
        /// The slots of own entries that other processes receive: for each of the data group's ranks that is the first
        /// one of its process, those for its process, one rank after the other.
        package let slots: Indices
        /// The number of `slots` for each rank of the data group.
        package let counts: Indices
        /// The number of entries that each rank of the data group sends to this process.
        package let arriving: Indices

        package init(
            _ reach: WindowReach, received: Indices, slots: Indices, counts: Indices, arriving: Indices
        ) {
            precondition(slots.count == counts.sum, "\(slots.count) slots, not \(counts.sum)")
            self.reach = reach
            self.received = received
            self.slots = slots
            self.counts = counts
            self.arriving = arriving
        }
    }

    /// Consecutive rows of one request, with the pages of all positions of the request so far.
    package struct RequestRows {
        /// The identifier of the request.
        package let request: UInt64
        package let rows: Range<Int>
        /// The page map of the request's entries, for each of the cache format's page groups.
        package let pages: [PageMap]
        /// True if the rows use query-gather attention; otherwise this rank reads all of their keys itself.
        package let usesDCP: Bool
        package init(request: UInt64, rows: Range<Int>, pages: [PageMap], usesDCP: Bool = false) {
            self.request = request
            self.rows = rows
            self.pages = pages
            self.usesDCP = usesDCP
        }
    }

    package init(
        own: Rows, tokens: Indices, entries: [EntryRows], windows: [WindowRows] = [], attended: Rows,
        dcpRows: DCPRows? = nil, outputs: Indices, cache: CacheStore, gatheredKeys: GatheredKeys? = nil,
        recorder: StageRecorder? = nil
    ) {
        precondition(tokens.count == own.count, "\(tokens.count) tokens for \(own.count) rows")
        precondition(entries.count == cache.format.groups.count, "slots for each group of key sets")
        self.own = own
        self.tokens = tokens
        self.entries = entries
        self.windows = windows
        self.attended = attended
        self.dcpRows = dcpRows
        self.outputs = outputs
        self.cache = cache
        self.gatheredKeys = gatheredKeys
        self.recorder = recorder
    }

    /// Returns a step with the same rows, other tokens and no recorder.
    package func with(tokens: Indices) -> Step {
        Step(
            own: own, tokens: tokens, entries: entries, windows: windows, attended: attended, dcpRows: dcpRows,
            outputs: outputs, cache: cache, gatheredKeys: gatheredKeys)
    }

    /// Returns the store in which rows that do not use query-gather attention read the keys of a set.
    package func readableKeys(_ set: KeySetID) -> CacheStore {
        guard let gatheredKeys, cache.format[set].window == nil else { return cache }
        return gatheredKeys.store
    }

    /// Returns the page group of a key set, and the group's index.
    package func group(of set: KeySetID) -> (index: Int, group: PageGroup) {
        let index = cache.format.group(of: set)
        return (index, cache.format.groups[index])
    }
}
