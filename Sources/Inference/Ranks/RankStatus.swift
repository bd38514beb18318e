/// The status of a rank counts what it did since the ranks were started, for metrics.
package struct RankStatus: Sendable, Equatable {
    package var rank: Int
    /// The rank's coordinate on each axis of attention: pipeline, data, context, tensor.
    package var coordinates: [Coordinate]
    /// The rank's index among the owners of a request's keys: token `t` belongs to index `(t / unit) mod owners`.
    package var keyOwner = 0
    /// The number of tokens of running requests whose keys this rank owns.
    package var ownedTokens = 0
    package var steps = 0
    /// The number of rows this rank owned.
    package var rows = 0
    /// The number of rows this rank owned in its last step.
    package var lastRows = 0
    /// `keysScored` counts the keys the rank's indexer scored, `keysAttended` those its heads attended to, over all
    /// rows and layers.
    package var keysScored = 0
    package var keysAttended = 0
    /// The number of tokens' inputs from which the rank's compressors made entries, over all layers.
    package var inputsCompressed = 0
    /// The seconds spent in steps, without those in collectives.
    package var busySeconds = 0.0
    /// The statistics of each of the rank's collectives.
    package var operations: [Operation] = []

    package struct Coordinate: Sendable, Equatable {
        package let axis: String
        package let place: Int
        package init(axis: String, place: Int) {
            self.axis = axis
            self.place = place
        }
    }

    /// One named collective, which every layer or every step repeats.
    package struct Operation: Sendable, Equatable {
        package let name: String
        package var calls = 0
        /// The number of bytes this rank received from others.
        package var bytes = 0
        /// The seconds spent waiting for other ranks and copying.
        package var seconds = 0.0
        /// The seconds that this rank spent here beyond the rank of its stage that spent least, summed over steps. The
        /// rank the others wait for spends least, so this is the cost of uneven work.
        package var skewSeconds = 0.0
        package init(name: String) { self.name = name }
    }

    package init(rank: Int, coordinates: [Coordinate]) {
        self.rank = rank
        self.coordinates = coordinates
    }

    /// The seconds spent in all collectives together.
    package var collectiveSeconds: Double { operations.reduce(0) { $0 + $1.seconds } }
    /// The seconds of these that are due to uneven work: see `Operation.skewSeconds`.
    package var skewSeconds: Double { operations.reduce(0) { $0 + $1.skewSeconds } }
}
