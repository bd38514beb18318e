/// The rows of a step, as far as they decide what moves between ranks.
package struct StepRows: Sendable, Equatable {
    /// For each rank of a stage how many rows it owns.
    package var owned: [Int]
    /// Those of them whose logits are needed.
    package var outputs: [Int]
    /// The largest position of its own rows; -1 where it has none.
    package var maxPosition: [Int]
    /// How many of its own rows let their queries go to the keys, and the largest position of those.
    package var dcpRows: [Int]
    package var maxDCPPosition: [Int]
    /// How many keys it sends for requests whose keys visit.
    package var gatheredKeys: [Int]

    /// No row's query goes to the keys, and none visits.
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
