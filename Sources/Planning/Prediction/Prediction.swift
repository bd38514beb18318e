package import Parallelism

/// What one layout is expected to do with a traffic.
package struct Prediction: Sendable {
    package let parallel: ParallelConfiguration
    package let memory: MemoryNeed
    /// Time to first token: one prompt, with nothing before it in the queue.
    package let firstToken: StepTime
    /// Time per output token: a decode step of `concurrency` requests, divided by the tokens it yields to each.
    package let perToken: StepTime
    /// Seconds for which a prompt keeps its data group's ranks busy.
    package let occupancy: Double
    /// Output tokens a second while requests always wait: prompts and decode steps share the ranks.
    package let throughput: Double
    /// Tokens of keys that the traffic needs at the same time.
    package let neededTokens: Int

    package init(_ time: LayoutTime, _ traffic: PlannedTraffic) {
        parallel = time.parallel
        memory = MemoryNeed(time, traffic)
        (firstToken, occupancy) = Self.prompt(time, traffic)
        perToken = Self.step(time, traffic)
        let requests = Double(traffic.concurrency)
        let rounds = (requests / Double(parallel.data)).rounded(.up)
        throughput =
            requests * Double(traffic.output)
            / (rounds * occupancy + Double(traffic.output) * perToken.total)
        neededTokens = traffic.concurrency * (traffic.input + traffic.output)
    }

    /// Tells whether weights and keys have room.
    package var fits: Bool { memory.fits && memory.capacity >= neededTokens }

    /// Chunks go through the stages one behind the other: the slowest stage sets the pace, and the last chunk has to go
    /// through all of them.
    private static func prompt(_ time: LayoutTime, _ traffic: PlannedTraffic) -> (StepTime, Double) {
        var (total, occupancy) = (StepTime(), 0.0)
        for chunk in traffic.sampledChunks {
            let stages = (0..<time.parallel.pipeline).map { time.prefill(chunk.positions, stage: $0) }
            let slowest = stages.max { $0.total < $1.total }!
            occupancy += Double(chunk.count) * slowest.total
            if chunk.positions.upperBound < traffic.input {
                total += Double(chunk.count) * slowest
            } else {
                for stage in stages { total += stage }
            }
        }
        return (total, occupancy)
    }

    /// Stages compute different requests at the same time, so that each has its part of them.
    private static func step(_ time: LayoutTime, _ traffic: PlannedTraffic) -> StepTime {
        let parallel = time.parallel
        let perGroup = (traffic.concurrency + parallel.data - 1) / parallel.data
        let requests = (perGroup + parallel.pipeline - 1) / parallel.pipeline
        var step = StepTime()
        for stage in 0..<parallel.pipeline {
            step += time.decode(
                requests: requests, rowsPerRequest: 1 + traffic.drafts, context: traffic.decodeContext, stage: stage)
        }
        for _ in 0..<traffic.drafts { step += time.draft(requests: requests, context: traffic.decodeContext) }
        return (1 / traffic.tokensPerStep) * step
    }
}
