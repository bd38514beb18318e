import ArgumentParser
import Foundation
import Modeling
import Models
import Tensors

/// The command measures how close the kernels come to the processor's limits.
struct BenchKernels: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kernels",
        abstract: "Measures every operation of a layer against this processor's measured limits.",
        discussion: """
            One thread, by the processor time it got. Weights and keys are read from main memory, as in a step; rows are \
            in a cache. The limit is the one that bounds an operation more: multiply-adds in F32, products of tiles \
            where bfloat16 uses AMX, or reading its bytes \
            once at the speed of memory (above 100 % where they were in a cache). It is measured anew beside every \
            operation. Sizes of blocks are those of the level, not those that braid tune found. The model's directory needs \
            a config.json only.
            """)

    @Option(name: [.customLong("model-path"), .customLong("model")], help: "The model's directory.")
    var modelPath: String

    @Option(
        name: [.customLong("tp-size"), .customLong("tp")], help: "Ranks that share heads and experts.",
        transform: Parsing.count(1...Parsing.maxRanks))
    var ranks = 1

    @Option(help: "Measure only operations whose name begins so, for example matmul.")
    var only = ""

    @Option(
        name: .customLong("repeat"), help: "Measurements of each operation; medians are shown.",
        transform: Parsing.count(1...Parsing.maxCount))
    var repetitions = 9

    @Option(help: "Instruction-set level: reference, neon, avx2, avx512, amx; default: the best this processor has.")
    var kernels: Kernels.Level?

    @Option(help: "How products and attention compute: float32, bfloat16, int8 or int8-float32.")
    var dtype = ProfileChoice.float32

    @Option(name: .customLong("json"), help: "Write the results to this file.")
    var file: String?

    @Option(help: "The commit that was built, for the file.")
    var commit: String?

    func validate() throws {
        if profile == nil { throw ValidationError("--dtype: give float32, bfloat16, int8 or int8-float32") }
        if repetitions < 1 { throw ValidationError("--repeat: \(repetitions) is not positive; try 9") }
    }

    func run() throws {
        let profile = self.profile!
        let kernels = try Kernels.asked(kernels).computing(in: profile)
        let shapes = try KernelShapes(try ModelDirectory(modelPath).description, ranks: ranks)
        let output = file.map { OutputFile($0, option: "--json") }
        try output?.check()
        let scratch = try Scratch.forBenchmark()
        let report = KernelReport(
            name: URL(fileURLWithPath: modelPath).lastPathComponent, ranks: ranks, level: kernels.level,
            profile: profile,
            peaks: [1, 2].map { MachinePeaks(kernels, threads: $0, repetitions: repetitions) },
            measurements: measure(shapes, kernels, scratch))
        print(report.text)
        try output?.write(report.json(commit: commit, date: Date()))
    }

    private var profile: NumericsProfile? { NumericsProfile.allCases.first { $0.name == dtype.rawValue } }

    private func measure(_ shapes: KernelShapes, _ kernels: Kernels, _ scratch: Scratch) -> [KernelMeasurement] {
        let bed = KernelBed(kernels: kernels, cold: ColdMemory(bytes: 512 << 20), scratch: scratch)
        let meter = PeakMeter(kernels, memory: bed.cold)
        let cases = shapes.cases(bed).filter { $0.operation.hasPrefix(only) }
        let progress = ProgressBar("\(cases.count) operations")
        defer { progress.finish() }
        return cases.enumerated().map { number, measured in
            defer { progress.update(Double(number + 1) / Double(cases.count)) }
            return KernelMeasurement(measured, repetitions: repetitions, beside: meter)
        }
    }
}
