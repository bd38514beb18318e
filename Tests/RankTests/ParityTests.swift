import Inference
import Models
import Parallelism
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5))) struct `Every layout gives one rank's bits` {
    @Test func probe() throws {
        for name in Golden.cases {
            let golden = try Golden(name)
            let model = try golden.directory.load()
            func run(_ parallel: ParallelConfiguration) throws -> RankPool.Outcome {
                var configuration = EngineConfiguration()
                configuration.pageSize = 4
                configuration.maxTotalTokens = 4096
                configuration.parallel = parallel
                let pool = RankPool(model, configuration, recording: Set(Stage.allCases))
                defer { pool.stop() }
                var sampling = SamplingParameters()
                sampling.temperature = 0
                let n = golden.prompt.count
                let score = (0..<n - 1).map { StepPlan.ScoreRow(row: $0, target: golden.prompt[$0 + 1]) }
                let plan = StepPlan(
                    number: 0,
                    chunks: [
                        .init(
                            request: 1, tokens: golden.prompt, start: 0,
                            pages: (0..<Int32((n + 3) / 4)).map { 900 - $0 },
                            sample: .init(parameters: sampling, position: n), score: score, topLogProbs: 2)
                    ])
                return try pool.run(plan)
            }
            let alone = try run(ParallelConfiguration())
            let (one, oneRecords) = (alone.result, alone.records)
            for request in [(1, 2, 1), (1, 4, 1), (1, 1, 2), (2, 1, 1), (1, 2, 2), (1, 3, 1)] {
                for exchange in ExpertExchangeKind.allCases {
                    for ep in [nil, 1, 2] {
                        var wish = ParallelRequest()
                        wish.attnDPSize = request.0
                        wish.attnCPSize = request.1
                        wish.tpSize = request.0 * request.1 * request.2
                        wish.exchange = exchange
                        wish.epSize = ep
                        guard let parallel = try? wish.resolve(for: model.parallelShape) else { continue }
                        let outcome = try run(parallel)
                        let (many, records) = (outcome.result, outcome.records)
                        let equal = many == one
                        if !equal || records.values != oneRecords.values {
                            let bad = oneRecords.values.keys.sorted {
                                ($0.layer, Stage.allCases.firstIndex(of: $0.stage)!) < (
                                    $1.layer, Stage.allCases.firstIndex(of: $1.stage)!
                                )
                            }.first { records.values[$0] != oneRecords.values[$0] }
                            print(
                                name, parallel, equal, bad as Any, records.values.keys.count,
                                oneRecords.values.keys.count)
                        } else {
                            print(name, parallel, "EQUAL")
                        }
                        #expect(equal || !parallel.keepsBits(for: model.parallelShape))
                    }
                }
            }
        }
    }
}
