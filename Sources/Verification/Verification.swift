import Inference
import KVCache
package import Modeling
package import Parallelism
package import Tensors

/// A verification compares parallel configurations with one rank: every token, log-probability and logit, bit by bit.
/// Only one thread may use it.
package final class Verification {
    /// The counts of events in the cases so far.
    package private(set) var coverage = RunCoverage()
    private let model: any Model
    private let settings: Settings
    private let measure: Workload.Measure
    private let jobs: MixRun.Jobs
    /// The transcripts of one rank for each workload, with whole prompts per chunk and without prefix cache.
    private var references: [Reference: Transcript] = [:]
    private var detailed: (of: Reference, transcript: Transcript)?

    /// A reference names what an answer depends on, so that one rank must have run with the same.
    private struct Reference: Hashable {
        let mix: Workload.Kind
        let cacheType: CacheType
        let profile: NumericsProfile
        /// True if the workload leaves prompts unscored, so that they can be found in the cache.
        let reuse: Bool

        init(_ conditions: ServingConditions) {
            mix = conditions.mix
            // Such a profile rounds keys to BF16 when it reads them: keeping them so must not change a bit.
            let isEqual = conditions.cacheType.keys == .bfloat16 && conditions.profile.roundsToBF16
            let keys = isEqual ? .float32 : conditions.cacheType.keys
            cacheType = CacheType(keys, hasFP4Index: conditions.cacheType.hasFP4Index)
            profile = conditions.profile
            reuse = conditions.prefix != .cold
        }
    }

    /// Settings that hold for all cases.
    package struct Settings: Sendable {
        /// The seed of prompts and sampling.
        package var seed: UInt64 = 1
        /// The instruction-set level of the kernels; `nil` takes the best that the processor has.
        package var kernels: Kernels.Level?
        package init() {}
    }

    /// The verdict on a case.
    package enum Verdict: Sendable, Equatable {
        case equal
        /// The logits are within tolerance, where bitwise equality is not promised. The value is the largest difference
        /// of a logit, relative to the largest of its row.
        case close(Float)
        case different(Difference)
    }

    /// - Parameters:
    ///   - processes: The processes the ranks are divided among; `nil` if all ranks run in this one.
    ///   - prefillProcesses: Those of the ranks of prefill servers.
    package init(
        _ model: any Model, _ measure: Workload.Measure, _ settings: Settings = Settings(),
        processes: ServerProcesses? = nil, prefillProcesses: ServerProcesses? = nil
    ) {
        jobs = MixRun.Jobs(server: processes, prefill: prefillProcesses)
        self.model = model
        self.measure = measure
        self.settings = settings
    }

    /// Returns whether a case must be bitwise equal to one rank.
    package func mustBeEqual(_ candidate: VerificationCase) -> Bool {
        candidate.isBitwiseEqual(for: model.parallelShape)
    }

    /// Returns the difference, relative to a row's largest value, that is allowed where bitwise equality is not
    /// promised. Where the cache or the profile rounds values, a difference in the last bit of one can become one of a whole
    /// step of that rounding: 2^-1 of the value in E2M1, 2^-3 in E4M3, 2^-7 in BF16 and of the largest value in INT8.
    package static func tolerance(of conditions: ServingConditions) -> Float {
        if conditions.cacheType.hasFP4Index { return 0.5 }
        if conditions.cacheType.keys == .fp8 { return 0.125 }
        return conditions.cacheType.keys == .bfloat16 || conditions.profile != .f32 ? 1e-2 : 1e-5
    }

    /// Serves a case's workload and compares the result with one rank's run.
    ///
    /// - Throws: `GroupFailure` if one rank alone cannot serve the workload.
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
            return locate(candidate, otherwise: difference)
        }
        if let difference = Self.first(comparisons, \.answerDifference) { return .different(difference) }
        let largest = comparisons.map(\.largest).max()!
        return largest == 0 ? .equal : .close(largest)
    }

    /// Returns one comparison for each time the workload was served.
    private func compare(
        _ found: MixRun, with expected: Transcript, _ candidate: VerificationCase
    ) -> [Comparison] {
        let tolerance = mustBeEqual(candidate) ? nil : Self.tolerance(of: candidate.conditions)
        var incomplete: Set<Stage> = []
        // In query-gather attention no rank sees all index scores of a row.
        let layouts = [candidate.layout, candidate.prefill?.layout ?? candidate.layout]
        if layouts.contains(where: { $0.kvSharding.ranks > 1 }) { incomplete = [.indexScores] }
        // Rows found in the cache are not computed, except those whose logits are needed.
        if candidate.conditions.prefix != .cold { incomplete = Set(Stage.allCases).subtracting([.logits]) }
        return found.runs.map { Comparison(expected, $0, tolerance: tolerance, incomplete: incomplete) }
    }

    private static func first(_ comparisons: [Comparison], _ what: (Comparison) -> Difference?) -> Difference? {
        for (number, comparison) in comparisons.enumerated() {
            if let difference = what(comparison) { return number == 0 ? difference : .again(difference) }
        }
        return nil
    }

    /// Runs one rank and the case again with all stages recorded, and finds the first difference that no near tie
    /// explains.
    private func locate(_ candidate: VerificationCase, otherwise difference: Difference) -> Verdict {
        let reference = Reference(candidate.conditions)
        do {
            if detailed?.of != reference {
                detailed = (reference, try alone(reference, recording: Set(Stage.allCases)))
            }
            let found = try run(candidate, recording: Set(Stage.allCases))
            var comparisons = compare(found, with: detailed!.transcript, candidate)
            var isExplained = false
            for index in comparisons.indices {
                while let first = comparisons[index].firstDifference {
                    guard comparisons[index].excuse(first) || comparisons[index].excuseReplaced() else {
                        return .different(index == 0 ? first : .again(first))
                    }
                    isExplained = true
                }
            }
            if isExplained { return .close(comparisons.map(\.largest).max()!) }
        } catch {
            return .different(.failure(error.description))
        }
        return .different(difference.notRepeated)
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
        (conditions.cacheType, conditions.profile) = (reference.cacheType, reference.profile)
        conditions.pageSize = max(conditions.pageSize, model.positionAlignment)
        let mix = Workload(reference.mix, measure, seed: settings.seed, reuse: reference.reuse)
        return try MixRun(
            model, VerificationCase(ParallelConfiguration(), conditions), mix, settings.kernels, jobs,
            seed: settings.seed, recording: stages
        ).runs[0]
    }

    private func run(_ candidate: VerificationCase, recording stages: Set<Stage>) throws(GroupFailure) -> MixRun {
        let reference = Reference(candidate.conditions)
        let mix = Workload(reference.mix, measure, seed: settings.seed, reuse: reference.reuse)
        return try MixRun(
            model, candidate, mix, settings.kernels, jobs, seed: settings.seed, recording: stages)
    }
}
