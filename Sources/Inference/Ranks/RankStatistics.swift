import Parallelism

/// Rank statistics accumulate the reports of all ranks, step by step.
struct RankStatistics {
    private let stageRanks: Int
    private let coordinates: [[RankStatus.Coordinate]]
    private let keyOwners: Int
    private var entries: [Entry]
    /// The names of the collectives of all ranks. A single rank may have met only some of them, because it has had no
    /// rows yet or belongs to another stage.
    private var operations: [String] = []

    /// The accumulated statistics of one rank.
    private struct Entry {
        var steps = 0
        var rows = 0
        var lastRows = 0
        var work = Work()
        var busySeconds = 0.0
        var collectives: [Meter.CollectiveStatistics] = []
        /// Maps each of the rank's collectives to its index in the outer `operations`.
        var operations: [Int] = []
        /// The key is an index in the outer `operations`.
        var skewSeconds: [Int: Double] = [:]
    }

    init(_ configuration: ParallelConfiguration) {
        let mesh = configuration.mesh
        stageRanks = configuration.stageRanks
        keyOwners = configuration.kvSharding.ranks
        entries = Array(repeating: Entry(), count: configuration.world)
        coordinates = (0..<configuration.world).map { rank in
            [Axis.pipeline, .data, .context, .tensor].map {
                RankStatus.Coordinate(axis: "\($0)", place: mesh.coordinate(of: rank, on: $0))
            }
        }
    }

    /// The seconds that a rank spent in each collective of one step; the key is an index in `operations`.
    typealias Spent = [Int: Double]

    /// Adds a rank's report of its next step, and returns the seconds it spent in each collective.
    mutating func enter(_ report: StepReport) -> Spent {
        let before = entries[report.rank].collectives
        for collective in report.operations[before.count...] {
            entries[report.rank].operations.append(index(of: collective.name))
        }
        var spent: Spent = [:]
        for (index, collective) in report.operations.enumerated() {
            let (calls, seconds) = index < before.count ? (before[index].calls, before[index].seconds) : (0, 0)
            if collective.calls > calls { spent[entries[report.rank].operations[index]] = collective.seconds - seconds }
        }
        entries[report.rank].steps += 1
        entries[report.rank].rows += report.rows
        entries[report.rank].lastRows = report.rows
        entries[report.rank].work = report.work
        entries[report.rank].busySeconds += report.seconds - spent.values.reduce(0, +)
        entries[report.rank].collectives = report.operations
        return spent
    }

    /// Adds the skew of a step that all ranks have finished: the time that each rank waited in a collective beyond the
    /// rank of its stage that waited least.
    ///
    /// - Parameter spent: For each rank the value that `enter` returned.
    mutating func close(_ spent: [Spent]) {
        for first in stride(from: 0, to: entries.count, by: stageRanks) {
            let ranks = first..<first + stageRanks
            let least = ranks.reduce(into: Spent()) { $0.merge(spent[$1], uniquingKeysWith: min) }
            for rank in ranks {
                for (operation, seconds) in spent[rank] {
                    entries[rank].skewSeconds[operation, default: 0] += seconds - least[operation]!
                }
            }
        }
    }

    private mutating func index(of name: String) -> Int {
        for index in operations.indices where operations[index] == name { return index }
        operations.append(name)
        return operations.count - 1
    }

    var status: [RankStatus] {
        entries.enumerated().map { rank, book in
            var status = RankStatus(rank: rank, coordinates: coordinates[rank])
            // The owners of a request's keys are consecutive ranks.
            status.keyOwner = rank % keyOwners
            status.steps = book.steps
            status.rows = book.rows
            status.lastRows = book.lastRows
            status.keysScored = book.work.scored
            status.keysAttended = book.work.attended
            status.inputsCompressed = book.work.compressed
            status.busySeconds = book.busySeconds
            status.operations = book.collectives.enumerated().map { index, collective in
                var operation = RankStatus.Operation(name: collective.name)
                operation.calls = collective.calls
                operation.bytes = collective.bytes
                operation.seconds = collective.seconds
                operation.skewSeconds = book.skewSeconds[book.operations[index]] ?? 0
                return operation
            }
            return status
        }
    }
}
