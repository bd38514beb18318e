import Parallelism

/// The books of all ranks: each report as it comes, and the steps they make up.
struct RankLedger {
    private let stageRanks: Int
    private let coordinates: [[RankStatus.Coordinate]]
    private var books: [Book]

    /// One rank's.
    private struct Book {
        var steps = 0
        var rows = 0
        var busySeconds = 0.0
        var accounts: [Meter.Account] = []
        /// One for each account.
        var skewSeconds: [Double] = []
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

    /// Enters what a rank did in its next step.
    ///
    /// - Returns: seconds it spent in each of its operations in this step.
    mutating func enter(_ report: StepReport) -> [Double] {
        let before = books[report.rank].accounts
        let spent = report.operations.enumerated().map { index, account in
            account.seconds - (index < before.count ? before[index].seconds : 0)
        }
        books[report.rank].steps += 1
        books[report.rank].rows += report.rows
        books[report.rank].busySeconds += report.seconds - spent.reduce(0, +)
        books[report.rank].accounts = report.operations
        return spent
    }

    /// Enters what the ranks of a stage waited for each other in a step that all have done.
    ///
    /// - Parameter spent: for each rank what `enter` returned.
    mutating func close(_ spent: [[Double]]) {
        for first in stride(from: 0, to: books.count, by: stageRanks) {
            let ranks = first..<first + stageRanks
            for rank in ranks {
                for (index, seconds) in spent[rank].enumerated() {
                    // Ranks of a stage take part in the same operations, in the same order.
                    let least = ranks.map { index < spent[$0].count ? spent[$0][index] : 0 }.min()!
                    if index == books[rank].skewSeconds.count { books[rank].skewSeconds.append(0) }
                    books[rank].skewSeconds[index] += seconds - least
                }
            }
        }
    }

    var status: [RankStatus] {
        books.enumerated().map { rank, book in
            var status = RankStatus(rank: rank, coordinates: coordinates[rank])
            status.steps = book.steps
            status.rows = book.rows
            status.busySeconds = book.busySeconds
            status.operations = book.accounts.enumerated().map { index, account in
                var operation = RankStatus.Operation(name: "\(account.name)")
                operation.calls = account.calls
                operation.bytes = account.bytes
                operation.seconds = account.seconds
                operation.skewSeconds = index < book.skewSeconds.count ? book.skewSeconds[index] : 0
                return operation
            }
            return status
        }
    }
}
