import ArgumentParser
import Foundation
import Inference
import JSON
import KVCache
package import Modeling
import Models
import Planning
import Tensors

/// The command measures one layer of each kind at a model's real size, for models that do not fit into this machine.
struct BenchLayer: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "layer",
        abstract: "Measures one layer of each kind at a model's real size, and what follows for the whole model.",
        discussion: """
            The model's directory needs a config.json only: weights are random, stored as the released checkpoint stores \
            them, or in each of the formats of --weights. For each kind of layer, a model of that one layer computes \
            steps of --batch tokens behind --context others, and prompts of --prefill tokens; then all layers' times and \
            the head's are added. Times of one thread are the processor's. The limit is what the weights and keys that a step must read, or its operations, take \
            at the speeds that this machine was measured at in the same run.
            """)

    @OptionGroup var engineOptions: EngineOptions
    @OptionGroup var output: BenchOutputOptions

    @Option(help: "Batch sizes, separated by commas.", transform: ascendingCounts(1...Parsing.maxRequests))
    var batch = [1, 8, 64]

    @Option(help: "The number of tokens behind which steps generate.", transform: Parsing.count(1...Parsing.maxTokens))
    var context = 4096

    @Option(
        help: "The number of tokens of a prompt to compute as well; 0 for none.",
        transform: Parsing.count(0...Parsing.maxTokens))
    var prefill = 4096

    @Option(
        help: """
            Formats of the layers' matrices, separated by commas: stored (as config.json says), float32, bfloat16, fp8, \
            int8, fp4 (FP4 experts, FP8 others).
            """, transform: LayerFormat.list)
    var weights = [LayerFormat.stored]

    @Option(
        help: """
            The number of experts of a layer that have weights of their own; others share theirs. Enough of them fill \
            more than any cache.
            """, transform: Parsing.count(1...Parsing.maxCount))
    var distinctExperts = 64

    @Option(help: "Measure only kinds of layers whose name begins so, for example dense.")
    var only = ""

    @Option(help: "Steps measured at each point.", transform: Parsing.count(1...Parsing.maxCount))
    var steps = 9

    @Option(help: "Steps at each point that are not counted.", transform: Parsing.count(0...Parsing.maxCount))
    var warmup = 1

    func run() async throws {
        let job = try engineOptions.join()
        try await job.run({ try engineOptions.load().model }, lead: { try measure(with: job) })
    }

    private func measure(with job: Job) throws {
        guard job.count == 1 else {
            throw CommandError("bench layer: layers are measured in one process, not in \(job.count); start one")
        }
        try OutputFile.ofResults(output.outputFile)?.check()
        let directory = try engineOptions.directory()
        let description = directory.configuration.description
        let kinds = MeasuredKind.all(of: description).filter { $0.name.hasPrefix(only) }
        guard !kinds.isEmpty else {
            let names = MeasuredKind.all(of: description).map(\.name).joined(separator: ", ")
            throw CommandError("--only: no kind of layer begins with '\(only)'; there are \(names)")
        }
        for format in weights {
            let formats = format.applied(to: description.formats)
            let profile = try profile(of: formats)
            let run = LayerRun(
                directory: directory, formats: formats, profile: profile, command: self, job: job)
            let report = try run.report(kinds)
            if !output.json { print(report.heading) }
            for line in report.lines { try output.write(line.json, row: line.row) }
            if !output.json { print("") }
        }
    }

    private func profile(of formats: WeightFormats) throws -> NumericsProfile {
        let profile = engineOptions.dtype.profile(of: formats)
        guard !profile.isForIntegers || formats.products.dtype == .int8 else {
            throw CommandError(
                "--dtype: \(profile.name) is for INT8 weights; give --weights int8, or leave it out")
        }
        return profile
    }
}

/// The format in which the matrices of a measured layer are stored.
package enum LayerFormat: String, CaseIterable, Sendable {
    case stored, float32, bfloat16, fp8, int8, fp4

    /// Reads formats separated by commas.
    ///
    /// - Throws: `CommandError` that names the part that is no format.
    package static func list(_ text: String) throws -> [LayerFormat] {
        try text.split(separator: ",", omittingEmptySubsequences: false).map { part in
            guard let format = LayerFormat(rawValue: part.trimmingCharacters(in: .whitespaces)) else {
                let names = allCases.map(\.rawValue).joined(separator: ", ")
                throw CommandError("'\(part)' is no format of weights; there are \(names)")
            }
            return format
        }
    }

    /// Returns a checkpoint's formats with the layers' matrices in this one.
    package func applied(to stored: WeightFormats) -> WeightFormats {
        var formats = stored
        switch self {
        case .stored: return stored
        case .float32: formats.products = WeightFormat(.f32)
        case .bfloat16: formats.products = WeightFormat(.bf16)
        case .fp8: formats.products = WeightFormat(.fp8)
        case .int8: formats.products = WeightFormat(.int8)
        case .fp4: formats.products = WeightFormat(.fp8)
        }
        formats.experts = self == .fp4 ? WeightFormat(.fp4) : formats.products
        return formats
    }
}

/// A kind of layers of a model, and the layers that a model needs to compute one of it.
package struct MeasuredKind {
    package let name: String
    /// The number of the model's layers of the kind.
    package let count: Int
    /// The first layer of the kind.
    package let layer: Int
    /// The nearest earlier layer that selects keys, if the layer reuses its selection.
    package let selecting: Int?

    package static func all(of model: ModelDescription) -> [MeasuredKind] {
        model.layerKinds.map { kind in
            let layer = model.layers.firstIndex { $0.kind == kind.kind }!
            let reuses = kind.operations.contains { if case .reuseSelection = $0 { true } else { false } }
            return MeasuredKind(
                name: kind.kind, count: model.layers.count { $0.kind == kind.kind }, layer: layer,
                selecting: reuses ? model.layers[..<layer].lastIndex { $0.selection != nil } : nil)
        }
    }
}
