package import KVCache

/// The numbers of rows of a step that determine what ranks send to each other. `LayoutCost` predicts bytes from them.
package struct StepRows: Sendable, Equatable {
    /// The number of rows that each rank of a stage owns.
    package var owned: [Int]
    /// The number of those rows whose logits are needed.
    package var outputs: [Int]
    /// The largest position of each rank's own rows; -1 if it has none.
    package var maxPosition: [Int]
    /// The number of each rank's own rows that use query-gather attention, and the largest position of those.
    package var dcpRows: [Int]
    package var maxDCPPosition: [Int]
    /// The number of keys that each rank sends for key-gather attention.
    package var gatheredKeys: [Int]
    /// The number of entries that each rank stores, by the number of tokens of an entry, where it is known.
    package var storedEntries: [Int: [Int]] = [:]
    /// The number of window entries that each rank receives from others, by the reach of the key set, where it is known.
    package var receivedWindows: [WindowReach: [Int]] = [:]

    /// Returns the number of entries of so many tokens that each rank stores, or expects to store.
    package func entries(of tokens: Int) -> [Double] {
        storedEntries[tokens]?.map(Double.init) ?? owned.map { Double($0) / Double(tokens) }
    }

    /// Creates the numbers of a step in which no row uses query-gather attention and no key is gathered.
    package init(owned: [Int], outputs: [Int], maxPosition: [Int]) {
        precondition(owned.count == outputs.count && owned.count == maxPosition.count, "as many ranks everywhere")
        self.owned = owned
        self.outputs = outputs
        self.maxPosition = maxPosition
        dcpRows = owned.map { _ in 0 }
        maxDCPPosition = owned.map { _ in -1 }
        gatheredKeys = dcpRows
    }
}
