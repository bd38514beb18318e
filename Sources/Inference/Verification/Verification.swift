package import KVCache
package import Models
package import Parallelism
package import Tensors

/// Compares layouts with one rank on a model: every token, log-probability and logit, bit by bit. One thread.
package final class Verification {
    private let model: any Model
    private let settings: Settings
    private let measure: BatchMix.Measure
    /// What one rank made of each mix, whole prompts at once; by what was recorded.
    private var references: [BatchMix.Kind: Transcript] = [:]
    private var detailed: (mix: BatchMix.Kind, transcript: Transcript)?

    /// What holds for all cases.
    package struct Settings: Sendable {
        /// Of prompts, tokens and draws.
        package var seed: UInt64 = 1
        package var cacheType = CacheType.float32
        /// `nil` for the best there are.
        package var kernels: Kernels.Level?
        package init() {}

        /// How far, relative to a row's largest value, layouts that do not keep one rank's bits may be from it. Where
        /// keys are rounded to BF16, a difference in the last bit of one can become one of BF16's bits, 2⁻⁸.
        package var tolerance: Float { cacheType == .float32 ? 1e-5 : 1e-2 }
    }

    /// What came of a case.
    package enum Verdict: Sendable, Equatable {
        case equal
        /// Not bit by bit, nor was it promised: the largest difference of a logit, relative to its row's largest.
        case close(Float)
        case different(Difference)
    }

    package init(_ model: any Model, _ measure: BatchMix.Measure, _ settings: Settings = Settings()) {
        self.model = model
        self.measure = measure
        self.settings = settings
    }

    /// Whether a case must have one rank's bits.
    package func mustBeEqual(_ candidate: VerificationCase) -> Bool {
        candidate.layout.keepsBits(for: model.parallelShape)
    }

    /// How many requests one rank preempts in a mix.
    package func preemptions(_ kind: BatchMix.Kind) throws(GroupFailure) -> UInt64 { try reference(kind).preemptions }

    /// Serves a case's mix and compares it with one rank's run.
    ///
    /// - Throws: `GroupFailure` when one rank alone cannot serve the mix.
    package func check(_ candidate: VerificationCase) throws(GroupFailure) -> Verdict {
        let expected = try reference(candidate.mix)
        let found: Transcript
        do {
            found = try run(candidate, recording: [.logits])
        } catch {
            return .different(.failure(error.description))
        }
        if let problem = found.problems.first { return .different(.books(problem)) }
        let isExact = mustBeEqual(candidate)
        let comparison = Comparison(expected, found, tolerance: isExact ? nil : settings.tolerance)
        if let difference = comparison.firstDifference {
            return .different(locate(candidate, otherwise: difference, tolerance: comparison.tolerance))
        }
        if let difference = comparison.answerDifference { return .different(difference) }
        return comparison.largest == 0 ? .equal : .close(comparison.largest)
    }

    /// Runs one rank and the case again with all stages recorded, and finds the first that differs.
    private func locate(
        _ candidate: VerificationCase, otherwise difference: Difference, tolerance: Float?
    ) -> Difference {
        do {
            if detailed?.mix != candidate.mix {
                let alone = VerificationCase(ParallelConfiguration(), chunk: nil, mix: candidate.mix)
                detailed = (candidate.mix, try run(alone, recording: Set(Stage.allCases)))
            }
            let found = try run(candidate, recording: Set(Stage.allCases))
            let comparison = Comparison(detailed!.transcript, found, tolerance: tolerance)
            if let first = comparison.firstDifference { return first }
        } catch {
            return .failure(error.description)
        }
        guard case .value(var value) = difference else { return difference }
        value.isRepeatable = false
        return .value(value)
    }

    private func reference(_ mix: BatchMix.Kind) throws(GroupFailure) -> Transcript {
        if let known = references[mix] { return known }
        let alone = VerificationCase(ParallelConfiguration(), chunk: nil, mix: mix)
        let transcript = try run(alone, recording: [.logits])
        for (request, answer) in transcript.answers.sorted(by: { $0.key < $1.key }) {
            if let failure = answer.failure {
                throw GroupFailure(rank: 0, reason: "request \(request) of the \(mix) mix: \(failure)")
            }
        }
        references[mix] = transcript
        return transcript
    }

    private func run(
        _ candidate: VerificationCase, recording stages: Set<Stage>
    ) throws(GroupFailure) -> Transcript {
        try Transcript(
            model, candidate.layout, chunk: candidate.chunk, BatchMix(candidate.mix, measure, seed: settings.seed),
            settings, recording: stages)
    }
}
