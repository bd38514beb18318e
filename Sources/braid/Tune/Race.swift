/// A race measures several ways of doing the same work alternately, so that other load of the machine affects all
/// alike.
struct Race {
    /// The median seconds of each way, in the order given.
    let seconds: [Double]

    /// - Parameter ways: The ways to measure; their first calls do not count.
    init(rounds: Int, _ ways: [() -> Void]) {
        // A measurement consists of as many runs as take half a millisecond.
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

    /// A way replaces the usual one only if it is faster by this fraction.
    static let margin = 0.03
}
