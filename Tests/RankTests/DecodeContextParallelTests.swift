import DeepSeekV32
import Inference
import Modeling
import Models
import Parallelism
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(15))) struct `Query-gather attention` {
    /// Prefills most of a golden prompt, then computes the rest in steps of a few rows; every row is scored.
    private static func run(_ golden: Golden, _ model: any Model, _ parallel: ParallelConfiguration, rows: Int) throws
        -> (scores: [[TokenLogProbs]], records: StageRecords, work: [RankStatus])
    {
        let pool = RankPool(
            model, EngineConfiguration(smallCache: parallel), recording: Set(Stage.allCases))
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

    /// Returns the keys that each rank read for the last token of a golden prompt.
    private static func work(_ golden: Golden, _ model: any Model, _ parallel: ParallelConfiguration) throws
        -> (scored: [Int], attended: [Int])
    {
        let pool = RankPool(model, EngineConfiguration(smallCache: parallel))
        defer { pool.stop() }
        let tokens = golden.prompt
        var before: [RankStatus] = []
        for (step, range) in [0..<tokens.count - 1, tokens.count - 1..<tokens.count].enumerated() {
            before = pool.status
            let pages = (0..<Int32((range.upperBound + 3) / 4)).map { $0 }
            let chunk = StepPlan.Chunk(
                request: 1, tokens: Array(tokens[range]), start: range.lowerBound, pages: pages)
            _ = try pool.run(StepPlan(number: step, chunks: [chunk]))
        }
        let after = pool.status
        return (
            zip(before, after).map { $1.keysScored - $0.keysScored },
            zip(before, after).map { $1.keysAttended - $0.keysAttended }
        )
    }

    @Test(arguments: ["v3", "v32"], [2, 4, 8])
    func `divides each row's keys evenly`(name: String, ranks: Int) throws {
        let golden = try Golden(name)
        let model = try golden.directory.load()
        let layers = model.description.layers.count
        let one = try Self.work(golden, model, ParallelConfiguration())
        #expect(one.attended[0] > 0 && (one.scored[0] > 0) == (name == "v32"))
        let parallel = ParallelConfiguration(
            context: ranks, kvSharding: KVSharding(ranks: ranks, minKeys: 1))
        let many = try Self.work(golden, model, parallel)
        #expect(many.scored.reduce(0, +) == one.scored[0])
        #expect(many.attended.reduce(0, +) == one.attended[0])
        // With runs of one token, ranks differ by at most one key in each layer.
        #expect(many.scored.max()! - many.scored.min()! <= layers)
        // The model decides which keys are selected; if all are, the division is as even.
        if name == "v3" { #expect(many.attended.max()! - many.attended.min()! <= layers) }
        // Without key owners one rank reads all keys.
        let undivided = try Self.work(golden, model, ParallelConfiguration(context: ranks))
        #expect(undivided.attended.filter { $0 > 0 } == one.attended)
    }

    /// The cases whose steps can be planned with one page map: V4 also has windows. `ParityTests` have them all.
    private static let cases = Golden.cases.filter { !$0.hasPrefix("v4") }

    @Test(arguments: cases, [1, 2, 3])
    func `gives one rank's bits`(name: String, rows: Int) throws {
        let golden = try Golden(name)
        let model = try golden.directory.load()
        let one = try Self.run(golden, model, ParallelConfiguration(), rows: rows)
        for (context, tensor, ranks, unit) in [
            (2, 1, 2, 1), (4, 1, 4, 1), (4, 1, 2, 1), (8, 1, 8, 1), (2, 2, 4, 1), (2, 2, 2, 1), (1, 2, 2, 1),
            (4, 1, 4, 2), (4, 1, 2, 4), (2, 1, 2, 2),
        ] {
            let parallel = ParallelConfiguration(
                context: context, tensor: tensor, kvSharding: KVSharding(ranks: ranks, unit: unit, minKeys: 1))
            guard parallel.isBitwiseEqual(for: model.parallelShape) else { continue }
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
