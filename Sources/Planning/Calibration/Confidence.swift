package import Parallelism

/// How sure a prediction is: an interval, or why there is none.
package struct Confidence: Sendable, Equatable {
    /// Multiples of the prediction between which 80 % of measurements are expected.
    package let interval: ClosedRange<Double>?
    /// What an interval does not say: "not measured" where the prediction extrapolates, "not calibrated" where
    /// predictions of the class missed what was published.
    package let note: String?

    package static let notMeasured = Confidence(interval: nil, note: "not measured")
}

extension Calibration {
    /// How sure a prediction is, from the published errors of its class.
    ///
    /// Devices, lengths and concurrency must be near those of some published row: within half as much again of the
    /// lengths, the same range of devices, and one request where decode steps count, as in all rows published so far.
    package func confidence(
        _ quantity: PublishedTable.Quantity, _ model: PlannedModel, _ cluster: Cluster,
        _ parallel: ParallelConfiguration, _ traffic: PlannedTraffic
    ) -> Confidence {
        let kind = CalibrationClass(model, cluster.hardware, quantity, parallel)
        guard cluster.hardware.efficiencies == nil, let record = records[kind], let interval = record.interval,
            record.devices.contains(cluster.devices), traffic.prefixHitRate == 0, traffic.drafts == 0,
            traffic.input * 3 / 2 >= record.inputs.lowerBound, traffic.input <= record.inputs.upperBound * 3 / 2,
            quantity == .firstToken || traffic.concurrency == 1
        else { return .notMeasured }
        return Confidence(
            interval: interval, note: record.verdict == .calibrated ? nil : record.verdict.rawValue)
    }
}
