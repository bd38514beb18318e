import Inference
import Models
import Parallelism
import TestSupport
import Testing

/// Ranks in processes that are none: each has a cache of its own, and they exchange messages.
@Suite(.timeLimit(.minutes(3))) struct `Ranks in several processes` {
    /// The verdicts of some cases, whose ranks are divided among so many processes.
    private static func verdicts(_ notations: [String], processes count: Int) throws -> [Verification.Verdict] {
        let golden = try Golden("v32")
        let model = try golden.directory.load()
        let couriers = MemoryCourier.network(count)
        defer { for courier in couriers { courier.leave() } }
        let measure = BatchMix.Measure(
            selecting: golden.directory.configuration.indexer?.topK, contextLength: model.contextLength,
            vocabularySize: model.vocabularySize)
        return try onEveryRank(of: count, limit: 150) { process -> [Verification.Verdict] in
            let processes = Processes(couriers[process])
            guard process == 0 else {
                try RankFollower(model, processes).run()
                return []
            }
            defer { RankFollower.dismiss(processes) }
            let verification = Verification(model, measure, processes: processes)
            return try notations.map {
                try verification.check(VerificationCase(notation: $0, for: model.parallelShape))
            }
        }[0]
    }

    @Test(arguments: [2, 3, 4]) func `give one rank's bits`(processes: Int) throws {
        let notations = [
            "cp2 ep2 interleave gathered chunk-1 long", "cp4 ep4 zigzag alltoall chunk5 mixed",
            "cp2 tp2 ep4 dense2 interleave gathered chunk7 crowded", "dp2 cp2 ep4 alltoall chunk5 crowded",
            "dp4 ep4 gathered chunk-1 crowded", "pp2 cp2 ep2 zigzag gathered chunk7 mixed",
            "cp4 ep4 dcp4 interleave gathered chunk7 mixed", "cp16 ep8 etp2 interleave gathered chunk7 mixed",
        ]
        let found = try Self.verdicts(notations, processes: processes)
        for (notation, verdict) in zip(notations, found) { #expect(verdict == .equal, "\(notation)") }
    }
}
