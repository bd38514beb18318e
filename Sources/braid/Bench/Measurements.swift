import Foundation

/// This type holds repeated measurements of one quantity, and computes their statistics. Statistics are `nil` where
/// there are no measurements.
package struct Measurements: Sendable, Equatable {
    /// The measurements in ascending order.
    private let values: [Double]

    package init(_ values: some Sequence<Double>) { self.values = values.sorted() }

    package var count: Int { values.count }
    package var sum: Double { values.reduce(0, +) }
    package var minimum: Double? { values.first }
    package var maximum: Double? { values.last }
    package var mean: Double? { values.isEmpty ? nil : sum / Double(count) }
    package var median: Double? { percentile(50) }

    /// The standard deviation of the population: it divides by the number of values, not by one less.
    package var standardDeviation: Double? {
        guard let mean else { return nil }
        return (values.map { ($0 - mean) * ($0 - mean) }.reduce(0, +) / Double(count)).squareRoot()
    }

    /// Returns the value below which `percent` of a hundred lie, interpolated linearly between its neighbours as by
    /// numpy's default.
    package func percentile(_ percent: Double) -> Double? {
        precondition((0...100).contains(percent), "a percentile is between 0 and 100")
        guard let last = values.last else { return nil }
        let place = percent / 100 * Double(count - 1)
        let below = Int(place)
        guard below + 1 < count else { return last }
        return values[below] + (values[below + 1] - values[below]) * (place - Double(below))
    }

    /// Returns every value times `factor`, which must be positive, for changes of unit.
    package func scaled(by factor: Double) -> Measurements { Measurements(values.map { $0 * factor }) }

    /// Returns every value plus `difference`, for measurements of which another one is a part.
    package func shifted(by difference: Double) -> Measurements { Measurements(values.map { $0 + difference }) }
}

/// Returns the processor seconds that all threads of this process have used so far.
func processSeconds() -> Double {
    var time = timespec()
    unsafe clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
}
