package import KVCache
package import Tensors

/// One rank's view of a step: rows with positions, and where their keys are. Nothing here says how many ranks there are.
package struct Step {
    /// The rows this rank owns: it computes everything of them that is not per head.
    package let own: Rows
    /// Input tokens of the own rows.
    package let tokens: Indices
    /// Where own rows store their entries, for each of the cache format's groups.
    package let entries: [EntryRows]
    /// The rows whose heads this rank has a part of: its own, and those of the ranks it shares heads with.
    package let attended: Rows
    /// The rows whose queries go to the keys, of all ranks among which the keys are divided; `nil` where there are none.
    package let dcpRows: DCPRows?
    /// Own rows whose hidden state leaves the last layer.
    package let outputs: Indices
    /// The keys this process keeps: all, or where processes divide them, those its ranks own.
    package let cache: CacheStore
    /// Set where processes divide the keys.
    package let gatheredKeys: GatheredKeys?
    /// Records values stage by stage when parity is in question; `nil` in service.
    package let recorder: StageRecorder?

    /// Rows in the order of their requests.
    package struct Rows {
        /// Each row's position in its own prompt, ascending within a request.
        package let positions: Indices
        /// Which rows belong to which request, in row order.
        package let requests: [RequestRows]
        /// The largest position; -1 where there is no row.
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

    /// Rows whose queries go to the keys' owners.
    package struct DCPRows {
        /// The own rows among them of each of those ranks, one rank after the other.
        package let own: Rows
        /// The attended rows among them of each of those ranks, one rank after the other.
        package let attended: Rows
        /// How many each rank has.
        package let ownCounts: Indices
        package let attendedCounts: Indices
        /// This rank's among them, as rows of `Step.own` and of `Step.attended`.
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

    /// The own rows that store an entry of the key sets of one group, and where.
    package struct EntryRows {
        /// Which own rows those are, ascending: all of them where each token has an entry of its own.
        package let rows: Indices
        /// The slot of the pages in which each entry is kept.
        package let slots: Indices
        /// How many such rows each rank of the stage has.
        package let counts: [Int]

        package init(rows: Indices, slots: Indices, counts: [Int]) {
            precondition(rows.count == slots.count, "\(rows.count) rows for \(slots.count) slots")
            self.rows = rows
            self.slots = slots
            self.counts = counts
        }
    }

    /// Consecutive rows of one request, with the pages of all its positions so far.
    package struct RequestRows {
        /// The request's number, for reports.
        package let request: UInt64
        package let rows: Range<Int>
        /// Where the request's entries are, for each of the cache format's groups.
        package let pages: [PageMap]
        /// Whether these rows' queries go to the keys; otherwise this rank reads all the keys itself.
        package let usesDCP: Bool
        package init(request: UInt64, rows: Range<Int>, pages: [PageMap], usesDCP: Bool = false) {
            self.request = request
            self.rows = rows
            self.pages = pages
            self.usesDCP = usesDCP
        }
    }

    package init(
        own: Rows, tokens: Indices, entries: [EntryRows], attended: Rows, dcpRows: DCPRows? = nil, outputs: Indices,
        cache: CacheStore, gatheredKeys: GatheredKeys? = nil, recorder: StageRecorder? = nil
    ) {
        precondition(tokens.count == own.count, "\(tokens.count) tokens for \(own.count) rows")
        precondition(entries.count == cache.format.groups.count, "slots for each group of key sets")
        self.own = own
        self.tokens = tokens
        self.entries = entries
        self.attended = attended
        self.dcpRows = dcpRows
        self.outputs = outputs
        self.cache = cache
        self.gatheredKeys = gatheredKeys
        self.recorder = recorder
    }

    /// The same rows with other tokens, and nothing recorded.
    package func with(tokens: Indices) -> Step {
        Step(
            own: own, tokens: tokens, entries: entries, attended: attended, dcpRows: dcpRows, outputs: outputs,
            cache: cache, gatheredKeys: gatheredKeys)
    }

    /// Where rows that do not use decode context parallelism read the keys of a set.
    package func readableKeys(_ set: KeySetID) -> CacheStore {
        guard let gatheredKeys, cache.format[set].window == nil else { return cache }
        return gatheredKeys.store
    }

    /// What a key set is, and the index of its group.
    package func group(of set: KeySetID) -> (index: Int, group: PageGroup) {
        let index = cache.format.group(of: set)
        return (index, cache.format.groups[index])
    }
}
