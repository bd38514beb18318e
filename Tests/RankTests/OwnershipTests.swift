import Inference
import Models
import Parallelism
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5))) struct `Queries that go to the keys` {
    /// Prefills most of a golden prompt, then computes the rest in steps of a few rows; every row is scored.
    private static func run(_ golden: Golden, _ model: any Model, _ parallel: ParallelConfiguration, rows: Int) throws
        -> (scores: [[TokenLogProbs]], records: StageRecords, work: [RankStatus])
    {
        var configuration = EngineConfiguration()
        configuration.pageSize = 4
        configuration.maxTotalTokens = 1024
        configuration.parallel = parallel
        let pool = RankPool(model, configuration, recording: Set(Stage.allCases))
        defer { pool.stop() }
        let count = golden.prompt.count
        var (start, step) = (0, 0)
        var scores: [[TokenLogProbs]] = []
        var records = StageRecords()
        while start < count - 1 {
            let end = start == 0 ? count - 12 : min(start + rows, count - 1)
            let chunk = StepPlan.Chunk(
                request: 1, tokens: Array(golden.prompt[start..<end]), start: start,
                pages: (0..<Int32((end + 3) / 4)).map { 200 - $0 },
                score: (start..<end).map { .init(row: $0 - start, target: golden.prompt[$0 + 1]) }, topLogProbs: 3)
            let outcome = try pool.run(StepPlan(number: step, chunks: [chunk]))
            #expect(outcome.result.chunks[0].failure == nil)
            scores.append(outcome.result.chunks[0].scored)
            records.merge(outcome.records)
            (start, step) = (end, step + 1)
        }
        return (Array(scores.joined()).map { [$0] }, records, pool.status)
    }

    @Test(arguments: Golden.cases, [1, 2, 3])
    func `give one rank's bits`(name: String, rows: Int) throws {
        let golden = try Golden(name)
        let model = try golden.directory.load()
        let one = try Self.run(golden, model, ParallelConfiguration(), rows: rows)
        for (context, tensor, ranks, unit) in [
            (2, 1, 2, 1), (4, 1, 4, 1), (4, 1, 2, 1), (8, 1, 8, 1), (2, 2, 4, 1), (2, 2, 2, 1), (1, 2, 2, 1),
            (4, 1, 4, 2), (4, 1, 2, 4), (2, 1, 2, 2),
        ] {
            let parallel = ParallelConfiguration(
                context: context, tensor: tensor, ownership: PageOwnership(ranks: ranks, unit: unit, leastKeys: 1))
            guard parallel.keepsBits(for: model.parallelShape) else { continue }
            let many = try Self.run(golden, model, parallel, rows: rows)
            #expect(many.scores == one.scores, "\(parallel)")
            if rows < ranks { #expect(many.work[1].operations.contains { "\($0.name)" == "partial attention" }) }
            for stage in [Stage.selected, .attention, .output, .logits] {
                for (key, values) in one.records.values where key.stage == stage {
                    #expect(many.records.values[key] == values, "\(parallel) \(key)")
                }
            }
        }
    }
}
