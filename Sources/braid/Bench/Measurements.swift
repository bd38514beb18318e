import Foundation

/// Repeated measurements of one thing, and what is usually asked of them. Everything is `nil` where there are none.
package struct Measurements: Sendable, Equatable {
    /// Ascending.
    private let values: [Double]

    package init(_ values: some Sequence<Double>) { self.values = values.sorted() }

    package var count: Int { values.count }
    package var sum: Double { values.reduce(0, +) }
    package var minimum: Double? { values.first }
    package var maximum: Double? { values.last }
    package var mean: Double? { values.isEmpty ? nil : sum / Double(count) }
    package var median: Double? { percentile(50) }

    /// Of the population: the mean square is over all values, not one less.
    package var standardDeviation: Double? {
        guard let mean else { return nil }
        return (values.map { ($0 - mean) * ($0 - mean) }.reduce(0, +) / Double(count)).squareRoot()
    }

    /// The value below which `percent` of a hundred lie, on the straight line between its neighbours, as numpy's
    /// default has it.
    package func percentile(_ percent: Double) -> Double? {
        precondition((0...100).contains(percent), "a percentile is between 0 and 100")
        guard let last = values.last else { return nil }
        let place = percent / 100 * Double(count - 1)
        let below = Int(place)
        guard below + 1 < count else { return last }
        return values[below] + (values[below + 1] - values[below]) * (place - Double(below))
    }

    /// Every value times `factor`, which is positive: for changes of unit.
    package func scaled(by factor: Double) -> Measurements { Measurements(values.map { $0 * factor }) }
}

/// What all threads of this process have used of the processors so far.
func processSeconds() -> Double {
    var time = timespec()
    unsafe clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
}
