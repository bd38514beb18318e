/// The errors of a class of predictions, and the interval they justify.
package struct ClassRecord: Sendable {
    /// Median and worst error of some rows, as fractions.
    package struct Errors: Sendable, Equatable {
        package let count: Int
        package let median: Double
        package let worst: Double

        init?(_ points: [Calibration.Point]) {
            let sorted = points.map { abs($0.error) }.sorted()
            guard let last = sorted.last else { return nil }
            count = sorted.count
            worst = last
            median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2
        }
    }

    package enum Verdict: String, Sendable {
        /// Within 10 % in the median and 30 % at worst, on rows nothing was fitted on.
        case calibrated
        case notCalibrated = "not calibrated"
        /// All its rows, or others of the same runs, were fitted on: nothing tells how wrong it is elsewhere.
        case fittedOnly = "fitted only"
        /// Too few rows were held out to tell.
        case tooFew = "too few rows"
    }

    package let fit: Errors?
    package let heldOut: Errors?
    private let isTested: Bool
    /// The part of held-out rows that lie inside the intervals which the other tables of the class justify, widened like
    /// this class's; `nil` where there is no other table.
    package let coverage: Double?
    /// What 80 % of measurements are expected between, as multiples of the prediction; `nil` for fewer than four rows,
    /// which justify none.
    package let interval: ClosedRange<Double>?
    /// Lengths and devices that were measured.
    package let inputs: ClosedRange<Int>
    package let devices: ClosedRange<Int>

    init(_ points: [Calibration.Point]) {
        fit = Errors(points.filter { $0.use == .fit })
        heldOut = Errors(points.filter { $0.use == .heldOut })
        isTested = points.contains { $0.use == .heldOut && $0.isIndependent }
        let lengths = points.map(\.row.input)
        inputs = lengths.min()!...lengths.max()!
        let counts = points.map(\.devices)
        devices = counts.min()!...counts.max()!
        (interval, coverage) = Self.widened(points)
    }

    package var verdict: Verdict {
        guard let heldOut, isTested else { return .fittedOnly }
        guard heldOut.count >= 3 else { return .tooFew }
        return heldOut.median <= 0.10 && heldOut.worst <= 0.30 ? .calibrated : .notCalibrated
    }

    /// The interval of all rows, widened until 80 % of held-out rows lie inside what the other tables justify: rows of one
    /// table are alike, so that a table alone promises too much.
    private static func widened(_ points: [Calibration.Point]) -> (ClosedRange<Double>?, Double?) {
        guard let interval = interval(points) else { return (nil, nil) }
        let judged = points.filter { $0.use == .heldOut }.compactMap { point in
            Self.interval(points.filter { $0.table != point.table }).map { (point.row.value / point.predicted, $0) }
        }
        guard !judged.isEmpty else { return (interval, nil) }
        func coverage(_ factor: Double) -> Double {
            Double(judged.count { ratio, others in wider(others, factor).contains(ratio) }) / Double(judged.count)
        }
        let factor = stride(from: 1.0, through: 10, by: 0.05).first { coverage($0) >= 0.8 } ?? 10
        return (wider(interval, factor), coverage(factor))
    }

    /// Returns the interval scaled by `factor` about its midpoint.
    private static func wider(_ interval: ClosedRange<Double>, _ factor: Double) -> ClosedRange<Double> {
        let middle = (interval.lowerBound + interval.upperBound) / 2
        let half = (interval.upperBound - interval.lowerBound) / 2 * factor
        return max(middle - half, 0.05)...middle + half
    }

    /// Between the tenth and the ninetieth percentile of measured by predicted, counted so that a new measurement is as
    /// likely in each of the gaps between the old ones (split conformal prediction); few rows widen it beyond them. Never
    /// narrower than 2 %: the same run twice differs as much.
    static func interval(_ points: [Calibration.Point]) -> ClosedRange<Double>? {
        guard points.count >= 4 else { return nil }
        let ratios = points.map { $0.row.value / $0.predicted }.sorted()
        let count = Double(ratios.count)
        func quantile(_ fraction: Double) -> Double {
            let place = fraction * (count + 1) - 1
            // Beyond the outermost rows there is no evidence: their distance from 1 grows with what is missing.
            if place < 0 { return 1 - max(1 - ratios[0], 0.02) * (1 - place) }
            if place > count - 1 { return 1 + max(ratios[ratios.count - 1] - 1, 0.02) * (place - count + 2) }
            let lower = Int(place)
            let part = place - Double(lower)
            return ratios[lower] * (1 - part) + ratios[min(lower + 1, ratios.count - 1)] * part
        }
        let low = max(quantile(0.1), 0.1)
        return min(low, quantile(0.9) * 0.98)...max(quantile(0.9), low * 1.02)
    }
}
