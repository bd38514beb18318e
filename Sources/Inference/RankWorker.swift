import KVCache
package import Models
import Parallelism
import Tensors

/// One rank's part of a step: takes its rows of the plan, runs the model once, chooses tokens. One thread.
package final class RankWorker {
    /// What a worker is made from, on the thread that will run it.
    package struct Seed: Sendable {
        let model: any Model
        let configuration: EngineConfiguration

        package init(model: any Model, configuration: EngineConfiguration) {
            self.model = model
            self.configuration = configuration
        }
    }

    private let model: any Model
    private let cache: CacheStore
    private let seat: Seat
    private var sampler: Sampler
    private let recorder: StageRecorder?
    private let pageShift: Int
    /// Rows of logits held at once; bounds memory when a whole prompt is scored.
    private static let logitRows = 32

    package init(_ seed: Seed, recorder: StageRecorder? = nil) {
        let configuration = seed.configuration
        model = seed.model
        let scheduler = configuration.scheduler(for: model)
        cache = CacheStore(
            format: model.cacheFormat(configuration.cacheType, pageSize: configuration.pageSize),
            pages: scheduler.totalPages)
        seat = Seat(kernels: configuration.kernels.flatMap { Kernels($0) } ?? .best)
        sampler = Sampler(vocabularySize: model.vocabularySize)
        pageShift = configuration.pageSize.trailingZeroBitCount
        self.recorder = recorder
    }

    /// Runs a step and reports what came of each chunk.
    package func run(_ plan: StepPlan) -> StepResult {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let step = step(for: plan)
        let hidden = seat.scratch.rows(step.outputs.count, model.hiddenSize)
        model.forward(step, seat, into: hidden)
        return choose(plan, hidden: hidden)
    }

    /// The rows of a chunk whose logits are needed: those that are scored, and the last if a token follows.
    private static func outputRows(of chunk: StepPlan.Chunk) -> [Int] {
        let last = chunk.tokens.count - 1
        let scored = chunk.score.map(\.row)
        return chunk.sample == nil || scored.last == last ? scored : scored + [last]
    }

    private func step(for plan: StepPlan) -> Step {
        let rows = plan.chunks.map(\.tokens.count).reduce(0, +)
        let scratch = seat.scratch
        let (tokens, positions, slots) = (scratch.indices(rows), scratch.indices(rows), scratch.indices(rows))
        let outputs = scratch.indices(plan.chunks.map { Self.outputRows(of: $0).count }.reduce(0, +))
        var requests: [Step.RequestRows] = []
        var (row, output) = (0, 0)
        for chunk in plan.chunks {
            let pages = scratch.indices(chunk.pages.count)
            pages.copy(chunk.pages)
            let map = PageMap(pages: pages, shift: pageShift)
            for offset in chunk.tokens.indices {
                tokens[row + offset] = chunk.tokens[offset]
                positions[row + offset] = Int32(chunk.start + offset)
                slots[row + offset] = map.slot(of: chunk.start + offset)
            }
            for wanted in Self.outputRows(of: chunk) {
                outputs[output] = Int32(row + wanted)
                output += 1
            }
            requests.append(Step.RequestRows(rows: row..<row + chunk.tokens.count, pages: map))
            row += chunk.tokens.count
        }
        return Step(
            tokens: tokens, positions: positions, slots: slots, requests: requests, outputs: outputs, cache: cache,
            recorder: recorder)
    }

    /// Scores and samples from the step's hidden states, a few rows of logits at a time: the head is read once for all
    /// requests of a tile.
    private func choose(_ plan: StepPlan, hidden: View) -> StepResult {
        var results = plan.chunks.map { StepResult.ChunkResult(request: $0.request) }
        let rows = plan.chunks.indices.flatMap { chunk in
            Self.outputRows(of: plan.chunks[chunk]).enumerated().map { (chunk: chunk, index: $0, row: $1) }
        }
        var first = 0
        while first < rows.count {
            let tile = first..<min(first + Self.logitRows, rows.count)
            let mark = seat.scratch.mark()
            defer { seat.scratch.reset(to: mark) }
            let logits = seat.scratch.rows(tile.count, model.vocabularySize)
            model.logits(hidden.rows(tile), seat, into: logits)
            for (place, wanted) in zip(0..<tile.count, rows[tile]) where results[wanted.chunk].failure == nil {
                let row = unsafe Span(_unsafeElements: logits.row(place))
                do {
                    try read(row, wanted.row, wanted.index, plan.chunks[wanted.chunk], &results[wanted.chunk])
                } catch {
                    results[wanted.chunk].failure = error.description
                }
            }
            first = tile.upperBound
        }
        return StepResult(chunks: results)
    }

    /// What one row of logits is for: the score of a known token, or the choice of the next.
    private func read(
        _ logits: Span<Float>, _ row: Int, _ index: Int, _ chunk: StepPlan.Chunk, _ result: inout StepResult.ChunkResult
    ) throws(SamplingFailure) {
        if index < chunk.score.count {
            let target = chunk.score[index].target
            result.scored.append(try sampler.score(logits, target: target, topLogProbs: chunk.topLogProbs ?? 0))
        }
        if let sample = chunk.sample, row == chunk.tokens.count - 1 {
            result.sampled = try sampler.choose(logits, as: sample, topLogProbs: chunk.topLogProbs)
        }
    }
}
