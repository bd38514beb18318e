import ArgumentParser
import Checkpoints
import Foundation
import JSON
import KVCache
import Modeling
import Models
import Parallelism
import Planning

/// Which layout of ranks to use on which devices, from `config.json` alone.
struct Plan: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Ranks layouts by what they would hold and how fast they would be, and says how sure that is.",
        discussion: """
            Arithmetic on the model's layers and a table of devices; nothing is computed and no weights are needed. \
            Efficiencies are fitted on published measurements; what others of them were missed by is printed beside \
            each prediction of the same kind: Docs/planning.md.
            """)

    @Option(
        name: [.customLong("model-path"), .customLong("model")],
        help: """
            A directory with a config.json, or a released model: v3.1, v3.2, v4-flash, v4-pro, glm-5. Default: v3.2, or \
            that of the server of --compare.
            """)
    var modelPath: String?

    @OptionGroup(title: "Hardware") var hardware: PlanHardwareOptions

    @OptionGroup(title: "Traffic") var traffic: PlanTrafficOptions

    @Option(help: "Layouts to show. Default: 10.", transform: Parsing.count(1...10_000))
    var top: Int?

    @Flag(help: "Some devices compute prompts and others decode: the best way to divide them.")
    var disaggregated = false

    @Option(help: "The time to the first token by ranks, such as cp=1..32, beside that of as many tensor ranks.")
    var scaling: RankRange?

    @Option(
        help: """
            Two models over lengths of prompts, such as v3.1,v3.2: from where on the second is faster. Or a server, as \
            http://host:port: what it measured, beside the prediction of its layout and traffic; BRAID_API_KEY is its key.
            """)
    var compare: String?

    @Option(help: "Draws --scaling into this file.")
    var svg: String?

    @Option(
        help: """
            Measure this machine's cores with the model's operations, and write them to this file for --hardware; auto: to \
            the one that is read where no --hardware is given.
            """)
    var measure: String?

    @Flag(help: "Print published measurements beside predictions, as Markdown.")
    var errors = false

    @Flag(help: "Fit the efficiencies on the published rows that are for that, and print them.")
    var fit = false

    @Flag(help: "Print one line of JSON.")
    var json = false

    func validate() throws {
        let modes = [
            ("--disaggregated", disaggregated), ("--scaling", scaling != nil), ("--compare", compare != nil),
            ("--measure", measure != nil), ("--errors", errors), ("--fit", fit),
        ].filter(\.1).map(\.0)
        if modes.count > 1 { throw ValidationError("\(modes.joined(separator: " and ")): give one of them") }
        if serverURL != nil, case let changed = try traffic.changed, !changed.isEmpty {
            throw ValidationError(
                "\(changed.joined(separator: ", ")): not with a server, which says what it has; leave it out")
        }
        if top != nil, let mode = modes.first { throw ValidationError("--top: \(mode) ranks no layouts; leave it out") }
        if json, serverURL == nil, let mode = modes.first { throw ValidationError("--json: there is none for \(mode)") }
        if svg != nil && scaling == nil { throw ValidationError("--svg draws --scaling; give both") }
    }

    /// The server to compare; `nil` where models are.
    private var serverURL: String? { compare.flatMap { $0.contains("://") ? $0 : nil } }

    func run() async throws {
        if let serverURL {
            let comparison = try await ServerComparison(url: serverURL, modelPath: modelPath, hardware)
            return print(json ? comparison.json.pythonText : comparison.text)
        }
        try runHere()
    }

    private func runHere() throws {
        if fit { return try printFit() }
        if errors { return print(CalibrationReport(try .builtIn()).markdown, terminator: "") }
        if let measure { return try writeMeasurement(measure) }
        let here = try hardware.named == nil ? ThisMachine() : nil
        if let compare { return try printComparison(compare, here) }
        let planner = try planner(modelPath ?? Self.defaultModel, here)
        let load = traffic.traffic(
            for: planner.cluster.hardware, positions: planner.model.description.contextLength)
        try check(load, planner.model)
        if let here, !(scaling == nil && !disaggregated) { print(titled("assumed", here.assumption)) }
        if let scaling { return try printScaling(planner, load, scaling.ranks) }
        if disaggregated { return try printDisaggregation(planner, load) }
        let layouts = planner.startableLayouts
        guard !layouts.isEmpty else {
            throw CommandError(
                "--hardware: no layout of \(planner.cluster.devices) ranks divides the model's "
                    + "\(planner.model.description.parallelShape.heads) heads and its experts")
        }
        let ranked = planner.ranked(planner.predictions(layouts, load), traffic.objectives)
        let report = PlanReport(
            planner, load, try .builtIn(),
            cache: try traffic.cache(for: planner.cluster.hardware, planner.model.description),
            assumed: here?.assumption, predictions: Array(ranked.prefix(top ?? 10)), considered: layouts.count,
            objectives: traffic.objectives)
        print(json ? report.json.pythonText : report.text)
    }

    private func check(_ load: PlannedTraffic, _ model: PlannedModel) throws {
        let limit = model.description.contextLength
        guard load.input + load.output <= limit else {
            throw CommandError("--input-tokens: with --output-tokens more than the model's \(limit) positions")
        }
        if load.drafts > 0, model.description.draftLayers.isEmpty {
            throw CommandError("--speculative-num-steps: the model has no next-token block that drafts; leave it out")
        }
    }

    /// - Parameter here: this machine, where no devices are named.
    private func planner(_ name: String, _ here: ThisMachine?) throws -> Planner {
        let named = try hardware.named
        let model = try PlanModels.named(name) { try traffic.cache(for: named?.hardware ?? here!.core, $0) }
        let table = try EfficiencyTable.builtIn()
        let cluster = traffic.computing(
            named ?? here!.cluster { !Planner(model, $0, table[$0.hardware]).startableLayouts.isEmpty })
        return Planner(model, cluster, table[cluster.hardware])
    }

    private static let defaultModel = ReleasedModel.v32.rawValue

    private func printFit() throws {
        let fitted = try Fit(
            PublishedTable.builtIn(), HardwareTable.builtIn(), model: PlanModels.ofPublished()
        ).run()
        print(fitted.json.pythonText)
    }

    private func writeMeasurement(_ path: String) throws {
        var file = path
        if path == "auto" {
            guard let standard = ThisMachine.standardPath() else {
                throw CommandError("--measure auto: this user has no cache directory; give a file")
            }
            file = standard
            try FileManager.default.createDirectory(
                at: URL(fileURLWithPath: file).deletingLastPathComponent(), withIntermediateDirectories: true)
        }
        let output = OutputFile(file, option: "--measure")
        try output.check()
        let model = try PlanModels.named(modelPath ?? Self.defaultModel) { try traffic.cache(for: nil, $0) }
        let hardware = try PlanMeasurement(model).hardware(name: "this-machine")
        try output.write(hardware.json.pythonText + "\n")
        print("\(hardware.devicesPerHost) cores, written to \(file)")
    }

    private func printScaling(_ planner: Planner, _ load: PlannedTraffic, _ ranks: ClosedRange<Int>) throws {
        let report = try ScalingReport(planner, load, .builtIn(), ranks: ranks)
        print(report.lines.joined(separator: "\n"))
        if let svg { try OutputFile(svg, option: "--svg").write(report.svg) }
    }

    private func printComparison(_ names: String, _ here: ThisMachine?) throws {
        let names = names.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        guard names.count == 2 else { throw CommandError("--compare: two models are compared, such as v3.1,v3.2") }
        let planners = try names.map { try planner($0, here) }
        let positions = planners.map(\.model.description.contextLength).min()!
        let comparison = try ModelComparison(
            planners, traffic.traffic(for: planners[0].cluster.hardware, positions: positions))
        if let here { print(titled("assumed", here.assumption)) }
        print(try comparison.lines().joined(separator: "\n"))
    }

    private func printDisaggregation(_ planner: Planner, _ load: PlannedTraffic) throws {
        guard planner.cluster.devices > 1 else {
            throw CommandError("--disaggregated: one device cannot be divided; give more with --hardware")
        }
        let pairs = planner.disaggregations(load, traffic.objectives)
        guard !pairs.isEmpty else {
            throw CommandError("--disaggregated: no division of the devices has room for the weights on both sides")
        }
        let cache = try traffic.cache(for: planner.cluster.hardware, planner.model.description)
        print(DisaggregationReport(planner, load, pairs, cache: cache).lines.joined(separator: "\n"))
    }
}
