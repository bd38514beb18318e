import Foundation
import Inference
import KVCache
import Modeling
import Models
import Planning
import Tensors

/// A layer setup keeps what a report needs of a benchmark's setup, whose model has been given up.
struct LayerSetup {
    let numerics: String
    let layout: String
    let kernels: Kernels.Level
    let configuration: EngineConfiguration
    let chunk: Int
    let format: CacheFormat

    init(_ setup: RankBench.Setup) {
        (numerics, layout, kernels) = (setup.numerics, setup.layout, setup.kernels)
        (configuration, chunk, format) = (setup.configuration, setup.chunk, setup.format)
    }
}

/// Measures layers whose weights are stored in one format.
struct LayerRun {
    let directory: ModelDirectory
    let formats: WeightFormats
    let profile: NumericsProfile
    let command: BenchLayer
    let job: Job

    /// The measurements of a model of a few layers.
    private struct Timing {
        let setup: LayerSetup
        /// The seconds of steps without logits, by batch size.
        var decode: [Int: Measurements] = [:]
        /// The same with logits.
        var withHead: [Int: Measurements] = [:]
        /// The seconds of the prompt; `nil` if none was computed.
        var prefill: Double?
    }

    /// Measures every kind of layers, and the head beside the first.
    func report(_ kinds: [MeasuredKind]) throws -> LayerReport {
        var known: [[Int]: Timing] = [:]
        func timing(_ layers: [Int], head: Bool = false) throws -> Timing {
            if let timing = known[layers] { return timing }
            let made = try measure(layers, head: head)
            known[layers] = made
            return made
        }
        var lines: [LayerReport.Line] = []
        for (number, kind) in kinds.enumerated() {
            let before = try kind.selecting.map { try timing([$0]) }
            let all = try timing((kind.selecting.map { [$0] } ?? []) + [kind.layer], head: number == 0)
            lines += try self.lines(kind, all, before)
            if number == 0 { lines += headLines(all) }
        }
        let setup = known.values.first!.setup
        let kernels = try Kernels.asked(setup.kernels).computing(in: profile)
        return LayerReport(
            name: directory.name, setup: setup, formats: formats, kernels: kernels,
            peaks: MachinePeaks(kernels, threads: setup.configuration.threads, repetitions: 5), measured: lines,
            isWhole: kinds.count == MeasuredKind.all(of: directory.configuration.description).count)
    }

    /// Measures a model of some of the layers.
    private func measure(_ layers: [Int], head: Bool) throws -> Timing {
        let configuration = directory.configuration.keepingLayers(layers)
        var description = configuration.description
        description.formats = formats
        let progress = ProgressBar("layers \(layers.map(String.init).joined(separator: ", "))")
        defer { progress.finish() }
        let model = try configuration.model(
            .dummy(DummyWeights(of: description, distinctExperts: command.distinctExperts)), drafts: false
        ) { _ in }
        let most = max(command.context + command.warmup + command.steps, command.prefill)
        let setup = try command.engineOptions.benchSetup(
            directory.name, model, profile, job, requests: command.batch.last!, positions: most)
        var timing = Timing(setup: LayerSetup(setup))
        try measureSteps(setup, positions: most, head: head, &timing) { progress.update($0) }
        timing.prefill = try prefill(setup)
        return timing
    }

    /// Measures steps that generate tokens.
    private func measureSteps(
        _ setup: RankBench.Setup, positions: Int, head: Bool, _ timing: inout Timing, progress: (Double) -> Void
    ) throws {
        let bench = RankBench(
            setup, requests: command.batch.last!, promptLength: command.context, positions: positions,
            seed: command.output.seed, computed: setup.configuration.pageSize)
        for request in 0..<command.batch.last! { _ = try bench.prefill(request: request, 0..<command.context) }
        for (number, batch) in command.batch.enumerated() {
            func steps(samples: Bool) throws -> Measurements {
                let steps = try bench.decode(
                    batch: batch, length: command.context, warmup: command.warmup, steps: command.steps,
                    samples: samples)
                return Measurements(isAlone(setup) ? steps.processorSeconds : steps.seconds)
            }
            timing.decode[batch] = try steps(samples: false)
            if head { timing.withHead[batch] = try steps(samples: true) }
            progress(Double(number + 1) / Double(command.batch.count + 1))
        }
    }

    /// Measures a prompt whose last row gets no logits, after one of a page that warms the caches.
    private func prefill(_ setup: RankBench.Setup) throws -> Double? {
        guard command.prefill > 0 else { return nil }
        let bench = RankBench(
            setup, requests: 1, promptLength: command.prefill, positions: command.prefill, seed: command.output.seed)
        let first = min(setup.configuration.pageSize, command.prefill)
        _ = try bench.prefill(request: 0, 0..<first, samples: false)
        let before = processSeconds()
        let seconds = try bench.prefill(request: 0, 0..<command.prefill, samples: false)
        return isAlone(setup) ? processSeconds() - before : seconds
    }

    /// Returns true for one thread, whose processor time other programs do not lengthen. Several threads wait for each
    /// other, so their time is that of a clock.
    private func isAlone(_ setup: RankBench.Setup) -> Bool { setup.configuration.threads == 1 }

    private func lines(_ kind: MeasuredKind, _ all: Timing, _ before: Timing?) throws -> [LayerReport.Line] {
        let format = all.setup.format
        var description = directory.configuration.description
        description.formats = formats
        description.layers = [description.layers[kind.layer]]
        let own = CacheFormat(layers: [format.layers.last!], pageSize: format.pageSize)
        let cost = try equalityCost(description.layers[0], all.setup)
        var lines = command.batch.map { batch in
            let without = before?.decode[batch]?.median ?? 0
            return LayerReport.Line(
                kind: kind.name, count: kind.count, rows: batch, context: command.context,
                seconds: all.decode[batch]!.shifted(by: -without), equality: cost(batch, command.context),
                work: StepWork(
                    description, format: own,
                    requests: Array(repeating: command.context..<command.context + 1, count: batch), outputs: 0))
        }
        if let seconds = all.prefill {
            let rows = min(all.setup.chunk, command.prefill)
            lines.append(
                LayerReport.Line(
                    kind: kind.name, count: kind.count, rows: command.prefill, context: 0,
                    seconds: Measurements([seconds - (before?.prefill ?? 0)]),
                    equality: cost(rows, command.prefill / 2) * Double(command.prefill) / Double(rows),
                    work: StepWork.prefill(
                        description, format: own, tokens: command.prefill, chunk: all.setup.chunk, outputs: 0)))
        }
        return lines
    }

    /// Returns what the canonical order costs a layer: a function of the number of rows and of the tokens before them,
    /// in seconds of the rank, whose threads share it.
    private func equalityCost(
        _ layer: LayerDescription, _ setup: LayerSetup
    ) throws -> (_ rows: Int, _ context: Int) -> Double {
        let kernels = try Kernels.asked(setup.kernels).computing(in: profile)
        let lane: DType = [.float32: .f32, .bfloat16: .bf16, .fp8: .fp8][setup.configuration.cacheType.keys]!
        let scratch = try Scratch.forBenchmark()
        let cost = EqualityCost(
            layer, formats, lane: lane,
            KernelBed(kernels: kernels, cold: ColdMemory(bytes: 512 << 20), scratch: scratch))
        return { rows, context in
            cost.seconds(rows: rows, context: context, repetitions: 5) / Double(setup.configuration.threads)
        }
    }

    /// Returns the head's lines: what steps with logits take longer than those without.
    private func headLines(_ timing: Timing) -> [LayerReport.Line] {
        var description = directory.configuration.description
        description.layers = []
        let none = CacheFormat(layers: [], pageSize: timing.setup.format.pageSize)
        return command.batch.map { batch in
            LayerReport.Line(
                kind: LayerReport.head, count: 1, rows: batch, context: command.context,
                seconds: timing.withHead[batch]!.shifted(by: -timing.decode[batch]!.median!),
                work: StepWork(
                    description, format: none,
                    requests: Array(repeating: command.context..<command.context + 1, count: batch), outputs: batch))
        }
    }
}
