import ArgumentParser
import Foundation
import Inference
import Modeling
import Models
import Tensors

/// The command finds the fastest block sizes for a model on this processor, and stores them for later runs.
struct Tune: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measures sizes of blocks for a model on this processor, and writes down the fastest.",
        discussion: """
            Results do not depend on them: tuned and untuned give the same bits. Every way is measured in turn with the \
            usual one, which stays where the gain is in doubt. Commands that run a model read the file when they start. \
            The model's directory needs a config.json only.
            """)

    @Option(name: [.customLong("model-path"), .customLong("model")], help: "The model's directory.")
    var modelPath: String

    @Option(
        name: .customLong("repeat"), help: "Measurements of each way; medians count.",
        transform: Parsing.count(1...Parsing.maxCount))
    var repetitions = 9

    @Option(help: "Instruction-set level: reference, neon, avx2, avx512, amx; default: the best this processor has.")
    var kernels: Kernels.Level?

    @Option(help: "Write here; default: this processor's file in the user's cache.")
    var output: String?

    func validate() throws {
        if repetitions < 1 { throw ValidationError("--repeat: \(repetitions) is not positive; try 9") }
    }

    func run() throws {
        let kernels = try Kernels.asked(kernels)
        guard kernels.level != .reference else {
            throw CommandError("--kernels: the reference kernels have no blocks; try \(Kernels.best.level.rawValue)")
        }
        guard let path = output ?? TuningFile.standardPath() else {
            throw CommandError("there is neither a HOME nor an XDG_CACHE_HOME; say where to write with --output")
        }
        let model = try ModelDirectory(modelPath).description
        _ = try former(path)
        let progress = ProgressBar("measuring sizes of blocks")
        let findings = try TuningBench(KernelShapes(model, ranks: 1), kernels, rounds: repetitions).run {
            progress.update($0)
        }
        progress.finish()
        // The file is read again, because others may have written it during the measurement.
        var file = try former(path)
        file.keep(
            TuningBench.tuning(findings), measured: findings.map(\.setting), for: TuningFile.key(model, kernels.level),
            date: Date().formatted(.iso8601))
        do { try file.write(to: path) } catch {
            throw CommandError("--output: cannot write to '\(path)': \(error.fileReason)")
        }

        print("\(Processor.name), \(TuningFile.key(model, kernels.level))\n")
        var table = TextTable(["setting", "chosen"], left: 1)
        for found in findings { table.add([found.setting, found.chosen.map(String.init) ?? "usual"]) }
        // The details are words of any length, so they are not a column of the table.
        for (line, detail) in zip(table.lines, ["times as fast"] + findings.map(\.detail)) {
            print(line + "  " + detail)
        }
        print("\nwritten to \(path)")
    }

    /// Reads the existing file. A file given by `--output` that is not a tuning file is an error; the default one is
    /// replaced.
    private func former(_ path: String) throws -> TuningFile {
        guard FileManager.default.fileExists(atPath: path) else { return TuningFile(processor: Processor.name) }
        do { return try TuningFile(path: path, option: "--output") } catch {
            if output != nil { throw CommandError("--output: \(error)") }
            note("writing anew: \(error)")
            return TuningFile(processor: Processor.name)
        }
    }
}
