/// What one rank did since the ranks were started, for metrics.
package struct RankStatus: Sendable, Equatable {
    package var rank: Int
    /// Its place on each axis of attention: pipeline, data, context, tensor.
    package var coordinates: [Coordinate]
    /// Its place among those that own keys together: token t of a request is that of place `t / unit mod owners`.
    package var keyOwner = 0
    /// Tokens it owns of the requests that are being computed.
    package var ownedTokens = 0
    package var steps = 0
    /// Rows it owned.
    package var rows = 0
    /// Keys its indexer scored, and keys its heads attended to, over rows and layers.
    package var keysScored = 0
    package var keysAttended = 0
    /// Spent in steps, collectives not counted.
    package var busySeconds = 0.0
    /// Its collectives, by operation.
    package var operations: [Operation] = []

    package struct Coordinate: Sendable, Equatable {
        package let axis: String
        package let place: Int
        package init(axis: String, place: Int) {
            self.axis = axis
            self.place = place
        }
    }

    /// One collective of every layer, or of every step.
    package struct Operation: Sendable, Equatable {
        package let name: String
        package var calls = 0
        /// Bytes this rank got from others.
        package var bytes = 0
        /// Waiting for others and copying.
        package var seconds = 0.0
        /// Step by step what this rank spent here beyond the rank of its stage that spent least. The least is that of
        /// the rank the others wait for, so this is what uneven work costs here.
        package var skewSeconds = 0.0
        package init(name: String) { self.name = name }
    }

    package init(rank: Int, coordinates: [Coordinate]) {
        self.rank = rank
        self.coordinates = coordinates
    }

    /// Time in collectives, all together.
    package var collectiveSeconds: Double { operations.reduce(0) { $0 + $1.seconds } }
}
