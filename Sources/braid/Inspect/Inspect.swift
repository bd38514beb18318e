import ArgumentParser
import Checkpoints
import Foundation
import Inference
import JSON
import KVCache
import Modeling
import Models
import Parallelism
import Planning
import Tensors

/// The command describes a checkpoint, and what a parallel configuration makes of it.
struct Inspect: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Says what a checkpoint is, and what its ranks would hold, compute and exchange.",
        discussion: """
            Layers, parameters, bytes; and for a layout every collective of a layer with its group, shape and bytes, \
            rows and weights per rank, and how many tokens the cache holds. Nothing is computed.
            """)

    @Option(name: [.customLong("model-path"), .customLong("model")], help: "The model's directory.")
    var modelPath: String

    @Flag(help: "Look at config.json alone, also where there are weights. Without any nothing else is looked at.")
    var configOnly = false

    @OptionGroup(title: "Ranks") var parallel: ParallelOptions

    @Option(
        help: "Tokens of the example prompt, one for each data group.", transform: Parsing.count(1...Parsing.maxTokens))
    var tokens = 4096

    @Option(
        parsing: .unconditional, help: "Its tokens computed in one step; default: all.",
        transform: Parsing.count(-1...Parsing.maxTokens))
    var chunkedPrefillSize: Int?

    @Option(help: "Memory of the process in GiB; default: this machine's.", transform: Parsing.number(0...1e9))
    var memory: Double?

    @Option(help: "Element type of the KV cache: auto, as braid serve takes it, float32, bfloat16, fp8_e4m3.")
    var kvCacheDtype = CacheChoice.auto

    @OptionGroup var indexCache: IndexCacheOptions

    @Option(help: "Draws the layout into this file.")
    var svg: String?

    @Flag(help: "Print one line of JSON.")
    var json = false

    func run() throws {
        let directory = try ModelDirectory(modelPath)
        let path = directory.path
        let examined = try configOnly || !WeightIndex.hasWeights(in: path) ? nil : directory.examineWeights()
        let (index, misfits) = (examined?.weights, examined?.misfits.map(\.description) ?? [])
        let report = try report(directory, index)
        if json {
            let members = report.json.object ?? []
            print(JSONValue.object(members + [JSONMember("misfits", .array(misfits.map(JSONValue.string)))]).pythonText)
        } else {
            let checkpoint = CheckpointSummary(directory.configuration)
            let weights = try index.map(CheckpointSummary.weights) ?? [CheckpointSummary.withoutWeights(directory)]
            print((checkpoint.lines + weights).joined(separator: "\n"))
            let tuned = try ChosenTuning(nil, directory.description, Kernels.best.level)
            print(titled("numerics", "\(report.profile.name) by --dtype auto"))
            print(titled("tuning", tuned.summary))
            let cores = parallel.numa.shares(ranks: report.parallel.world, threads: parallel.threads)
            print(titled("cores", cores.text))
            print(report.text)
            if !misfits.isEmpty { print(Self.text(of: misfits)) }
        }
        if let svg { try OutputFile(svg, option: "--svg").write(report.drawing) }
        // No other command takes these weights.
        if !misfits.isEmpty { throw ExitCode.failure }
    }

    /// Returns the lines that say where weights do not fit config.json.
    private static func text(of misfits: [String]) -> String {
        let more = misfits.count - mostMisfits
        let lines = misfits.prefix(mostMisfits) + (more > 0 ? ["… and \(more) more; --json has them all"] : [])
        return (["", "weights that do not fit config.json: \(misfits.count)"] + lines).joined(separator: "\n")
    }

    private static let mostMisfits = 10

    private func report(_ directory: ModelDirectory, _ index: WeightIndex?) throws -> LayoutReport {
        let model = directory.description
        var problems: [String] = []
        var configuration = ParallelConfiguration()
        do throws(ParallelRequest.Refusal) {
            configuration = try parallel.request().resolve(for: model.parallelShape)
        } catch {
            problems = error.problems.map(\.description)
        }
        func check(_ option: String, _ value: Int, _ most: Int) {
            if !(1...most).contains(value) { problems.append("\(option): \(value) is not between 1 and \(most)") }
        }
        check("--threads-per-rank", parallel.threads, 64)
        check("--tokens", tokens, LayoutReport.maxTokens)
        check("--chunked-prefill-size", chunkedPrefillSize ?? 1, LayoutReport.maxTokens)
        if let memory, !(0...1_048_576).contains(memory) {
            problems.append("--memory: \(memory) GiB is not between 0 and 1048576")
        }
        let profile = ProfileChoice.auto.profile(of: directory, index)
        let cacheType = indexCache.type(kvCacheDtype.keys(in: profile))
        if let problem = model.problem(with: cacheType) { problems.append(problem) }
        guard problems.isEmpty else { throw CommandError(problems.joined(separator: "\n")) }
        return try LayoutReport(
            directory.name, model, configuration, threadsPerRank: parallel.threads, cacheType: cacheType,
            profile: profile,
            format: directory.configuration.cacheFormat(cacheType, pageSize: 128, drafts: false),
            example: .init(tokens: tokens, chunk: chunkedPrefillSize ?? tokens),
            memory: memory.map { Int($0 * 1_073_741_824) } ?? HostMemory.current.total
        ) { weights in
            guard let index, weights.names.allSatisfy(index.contains) else { return model.formats.bytes(of: weights) }
            return try weights.names.reduce(0) { try $0 + index.memoryBytes(ofWeight: $1) }
        }
    }
}

/// A checkpoint summary describes a checkpoint, without ranks.
struct CheckpointSummary {
    private(set) var lines: [String] = []

    init(_ configuration: any ModelConfiguration) {
        let model = configuration.description
        show("model", "\(model.modelType), \(model.contextLength) positions, vocabulary \(model.vocabularySize)")
        let blocks = model.draftLayers.count
        let kinds = model.layerKinds.map { kind in "\(model.layers.count { $0.kind == kind.kind }) \(kind.kind)" }
        show(
            "layers",
            "\(model.layers.count), \(kinds.joined(separator: ", ")), hidden \(model.hiddenSize)"
                + (blocks > 0 ? ", \(blocks) next-token block" : ""))
        if let attention = model.attention {
            let selecting = model.layers.count { $0.selection != nil }
            let shared =
                selecting < model.layers.count ? ", index keys in \(selecting) of \(model.layers.count) layers" : ""
            let keys =
                model.selection.map { ", indexer \($0.heads) × \($0.width), top \($0.topK)\(shared)" } ?? ", dense"
            show(
                "attention",
                "\(attention.heads) heads, latent \(attention.latentWidth) + rotary \(attention.ropeWidth)\(keys)")
        }
        if let experts = model.experts {
            let (gate, shared) = (experts.gate, model.parallelShape.sharedWidth / experts.width)
            show(
                "experts",
                "\(gate.experts) of width \(experts.width), \(gate.expertsPerToken) per token, "
                    + "\(shared) shared, groups \(gate.groups)/\(gate.topGroups)")
        }
        let parameters = model.parameters
        show("parameters", "\(grouped(parameters.total)), \(grouped(parameters.active)) active per token")
        for type in model.cacheTypes {
            let bytes = configuration.cacheFormat(type, pageSize: 128, drafts: false).bytesPerToken
            let full = Int(bytes * Double(model.contextLength)) >> 20
            let drafting = configuration.cacheFormat(type, pageSize: 128, drafts: true).bytesPerToken - bytes
            show(
                "KV cache",
                "\(type.rawValue): \(grouped(Int(bytes))) bytes per token, \(grouped(full)) MiB for a full context"
                    + (blocks > 0 ? "; \(grouped(Int(drafting))) more with draft tokens" : ""))
        }
    }

    private mutating func show(_ title: String, _ text: String) { lines.append(titled(title, text)) }

    /// Returns the line for a directory whose weights are not looked at.
    static func withoutWeights(_ directory: ModelDirectory) -> String {
        titled("weights", "not looked at: bytes are those of \(directory.description.formats)")
    }

    /// Returns lines about the tensors in the files, by type.
    static func weights(_ index: WeightIndex) throws -> [String] {
        var byType: [String: Int] = [:]
        for name in index.names {
            let tensor = try index.tensor(named: name)
            byType[tensor.type.rawValue, default: 0] += tensor.byteCount
        }
        let size = "\(index.names.count) tensors in \(index.files.count) files, \(grouped(index.totalBytes)) bytes"
        return [titled("weights", size)]
            + byType.sorted { $0.value > $1.value }.map { titled("", "\($0.key) \(grouped($0.value)) bytes") }
    }
}

/// Returns a line with a heading in a column of its own.
func titled(_ title: String, _ text: String) -> String {
    title.padding(toLength: 13, withPad: " ", startingAt: 0) + text
}

/// Returns a number with its digits in groups of three: 1234567 becomes 1 234 567.
func grouped(_ number: Int) -> String {
    var text = ""
    for (index, digit) in String(number).reversed().enumerated() {
        if index > 0, index % 3 == 0, digit != "-" { text = " " + text }
        text = String(digit) + text
    }
    return text
}
