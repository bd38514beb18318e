import Parallelism

/// The books of all ranks: each report as it comes, and the steps they make up.
struct RankLedger {
    private let stageRanks: Int
    private let coordinates: [[RankStatus.Coordinate]]
    private var books: [Book]
    /// Of all ranks. One that has had no rows yet, or is in another stage, has not met all of them.
    private var operations: [String] = []

    /// One rank's.
    private struct Book {
        var steps = 0
        var rows = 0
        var work = Work()
        var busySeconds = 0.0
        var accounts: [Meter.Account] = []
        /// For each account its index among the operations.
        var operations: [Int] = []
        /// By operation.
        var skewSeconds: [Int: Double] = [:]
    }

    init(_ configuration: ParallelConfiguration) {
        let mesh = configuration.mesh
        stageRanks = configuration.stageRanks
        books = Array(repeating: Book(), count: configuration.world)
        coordinates = (0..<configuration.world).map { rank in
            [Axis.pipeline, .data, .context, .tensor].map {
                RankStatus.Coordinate(axis: "\($0)", place: mesh.coordinate(of: rank, on: $0))
            }
        }
    }

    /// What a rank spent in a step, by operation.
    typealias Spent = [Int: Double]

    /// Enters what a rank did in its next step.
    mutating func enter(_ report: StepReport) -> Spent {
        let before = books[report.rank].accounts
        for account in report.operations[before.count...] {
            books[report.rank].operations.append(index(of: account.name))
        }
        var spent: Spent = [:]
        for (index, account) in report.operations.enumerated() {
            let (calls, seconds) = index < before.count ? (before[index].calls, before[index].seconds) : (0, 0)
            if account.calls > calls { spent[books[report.rank].operations[index]] = account.seconds - seconds }
        }
        books[report.rank].steps += 1
        books[report.rank].rows += report.rows
        books[report.rank].work = report.work
        books[report.rank].busySeconds += report.seconds - spent.values.reduce(0, +)
        books[report.rank].accounts = report.operations
        return spent
    }

    /// Enters what the ranks of a stage waited for each other in a step that all have done.
    ///
    /// - Parameter spent: for each rank what `enter` returned.
    mutating func close(_ spent: [Spent]) {
        for first in stride(from: 0, to: books.count, by: stageRanks) {
            let ranks = first..<first + stageRanks
            let least = ranks.reduce(into: Spent()) { $0.merge(spent[$1], uniquingKeysWith: min) }
            for rank in ranks {
                for (operation, seconds) in spent[rank] {
                    books[rank].skewSeconds[operation, default: 0] += seconds - least[operation]!
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
        books.enumerated().map { rank, book in
            var status = RankStatus(rank: rank, coordinates: coordinates[rank])
            status.steps = book.steps
            status.rows = book.rows
            status.keysScored = book.work.scored
            status.keysAttended = book.work.attended
            status.busySeconds = book.busySeconds
            status.operations = book.accounts.enumerated().map { index, account in
                var operation = RankStatus.Operation(name: account.name)
                operation.calls = account.calls
                operation.bytes = account.bytes
                operation.seconds = account.seconds
                operation.skewSeconds = book.skewSeconds[book.operations[index]] ?? 0
                return operation
            }
            return status
        }
    }
}
