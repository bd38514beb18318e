import Inference
package import KVCache
package import Modeling
package import Parallelism
package import Tensors

/// Compares layouts with one rank on a model: every token, log-probability and logit, bit by bit. One thread.
package final class Verification {
    /// What has happened in the cases so far.
    package private(set) var coverage = RunCoverage()
    private let model: any Model
    private let settings: Settings
    private let measure: Workload.Measure
    private let processes: Processes?
    /// What one rank made of each mix, whole prompts at once and nothing in the cache; by what was recorded.
    private var references: [Reference: Transcript] = [:]
    private var detailed: (of: Reference, transcript: Transcript)?

    /// What decides on an answer, and must be the same on one rank.
    private struct Reference: Hashable {
        let mix: Workload.Kind
        let cacheType: CacheType
        /// Whether the mix leaves prompts unscored, so that they can be found in the cache.
        let reuse: Bool

        init(_ conditions: ServingConditions) {
            mix = conditions.mix
            cacheType = conditions.cacheType
            reuse = conditions.prefix != .cold
        }
    }

    /// What holds for all cases.
    package struct Settings: Sendable {
        /// Of prompts, tokens and draws.
        package var seed: UInt64 = 1
        /// `nil` for the best there are.
        package var kernels: Kernels.Level?
        package init() {}
    }

    /// What came of a case.
    package enum Verdict: Sendable, Equatable {
        case equal
        /// Not bit by bit, nor was it promised: the largest difference of a logit, relative to its row's largest.
        case close(Float)
        case different(Difference)
    }

    /// - Parameter processes: where ranks live, if not all in this one.
    package init(
        _ model: any Model, _ measure: Workload.Measure, _ settings: Settings = Settings(), processes: Processes? = nil
    ) {
        self.processes = processes
        self.model = model
        self.measure = measure
        self.settings = settings
    }

    /// Whether a case must have one rank's bits.
    package func mustBeEqual(_ candidate: VerificationCase) -> Bool {
        candidate.layout.isBitwiseEqual(for: model.parallelShape)
    }

    /// How far, relative to a row's largest value, layouts that do not keep one rank's bits may be from it. Where keys are
    /// rounded, a difference in the last bit of one can become one of the bits it is rounded to.
    package static func tolerance(of cacheType: CacheType) -> Float { cacheType == .float32 ? 1e-5 : 1e-2 }

    /// Serves a case's mix and compares it with one rank's run.
    ///
    /// - Throws: `GroupFailure` when one rank alone cannot serve the mix.
    package func check(_ candidate: VerificationCase) throws(GroupFailure) -> Verdict {
        let expected = try reference(Reference(candidate.conditions))
        let found: MixRun
        do {
            found = try run(candidate, recording: [.logits])
        } catch {
            return .different(.failure(error.description))
        }
        coverage.add(found.coverage)
        if let problem = found.problems.first { return .different(.entries(problem)) }
        let comparisons = compare(found, with: expected, candidate)
        if let difference = Self.first(comparisons, \.firstDifference) {
            return .different(locate(candidate, otherwise: difference))
        }
        if let difference = Self.first(comparisons, \.answerDifference) { return .different(difference) }
        let largest = comparisons.map(\.largest).max()!
        return largest == 0 ? .equal : .close(largest)
    }

    /// One comparison for each time the mix was served.
    private func compare(
        _ found: MixRun, with expected: Transcript, _ candidate: VerificationCase
    ) -> [Comparison] {
        let tolerance = mustBeEqual(candidate) ? nil : Self.tolerance(of: candidate.conditions.cacheType)
        var incomplete: Set<Stage> = []
        // Where queries go to the keys, nobody sees all scores of a row.
        if candidate.layout.kvSharding.ranks > 1 { incomplete = [.indexScores] }
        // What is found in the cache is not computed, except what is to be known of it.
        if candidate.conditions.prefix != .cold { incomplete = Set(Stage.allCases).subtracting([.logits]) }
        return found.runs.map { Comparison(expected, $0, tolerance: tolerance, incomplete: incomplete) }
    }

    private static func first(_ comparisons: [Comparison], _ what: (Comparison) -> Difference?) -> Difference? {
        for (number, comparison) in comparisons.enumerated() {
            if let difference = what(comparison) { return number == 0 ? difference : .again(difference) }
        }
        return nil
    }

    /// Runs one rank and the case again with all stages recorded, and finds the first that differs.
    private func locate(_ candidate: VerificationCase, otherwise difference: Difference) -> Difference {
        let reference = Reference(candidate.conditions)
        do {
            if detailed?.of != reference {
                detailed = (reference, try alone(reference, recording: Set(Stage.allCases)))
            }
            let found = try run(candidate, recording: Set(Stage.allCases))
            if let first = Self.first(compare(found, with: detailed!.transcript, candidate), \.firstDifference) {
                return first
            }
        } catch {
            return .failure(error.description)
        }
        return difference.notRepeated
    }

    private func reference(_ reference: Reference) throws(GroupFailure) -> Transcript {
        if let known = references[reference] { return known }
        let transcript = try alone(reference, recording: [.logits])
        for (request, answer) in transcript.answers.sorted(by: { $0.key < $1.key }) {
            if let failure = answer.failure {
                throw GroupFailure(rank: 0, reason: "request \(request) of the \(reference.mix) mix: \(failure)")
            }
        }
        references[reference] = transcript
        return transcript
    }

    private func alone(_ reference: Reference, recording stages: Set<Stage>) throws(GroupFailure) -> Transcript {
        var conditions = ServingConditions()
        conditions.cacheType = reference.cacheType
        conditions.pageSize = max(conditions.pageSize, model.positionAlignment)
        let mix = Workload(reference.mix, measure, seed: settings.seed, reuse: reference.reuse)
        return try MixRun(
            model, VerificationCase(ParallelConfiguration(), conditions), mix, settings.kernels, processes: processes,
            recording: stages
        ).runs[0]
    }

    private func run(_ candidate: VerificationCase, recording stages: Set<Stage>) throws(GroupFailure) -> MixRun {
        let reference = Reference(candidate.conditions)
        let mix = Workload(reference.mix, measure, seed: settings.seed, reuse: reference.reuse)
        return try MixRun(
            model, candidate, mix, settings.kernels, processes: processes, recording: stages)
    }
}
