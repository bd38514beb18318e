/// The same work done in several ways, in turn, so that whatever else the machine does is the same for all of them.
struct Race {
    /// Median seconds of each way, in the order given.
    let seconds: [Double]

    /// - Parameter ways: their first calls are not measured.
    init(rounds: Int, _ ways: [() -> Void]) {
        // As many runs as take half a millisecond.
        let runs = ways.map { way in
            way()
            return max(Int(0.0005 / max(processorSeconds(way), 1e-7)), 1)
        }
        var all = ways.map { _ in [Double]() }
        for _ in 0..<rounds {
            for (index, way) in ways.enumerated() {
                let taken = processorSeconds { for _ in 0..<runs[index] { way() } }
                all[index].append(taken / Double(runs[index]))
            }
        }
        seconds = all.map { Measurements($0).median! }
    }

    /// A way has to be faster by so much to be taken instead of the usual one.
    static let margin = 0.03
}
