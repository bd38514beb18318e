import Foundation
import JSON
import Modeling
import Planning
import Tensors

/// What a rank of this machine does with a model's operations: a device to plan for, a core each.
struct PlanMeasurement {
    private let model: PlannedModel
    private let kernels: Kernels
    private let cores: Int
    private let repetitions = 5

    /// - Parameter kernels: those to measure; by default the best, in the profile that `--dtype auto` takes for such
    ///   weights.
    init(
        _ model: PlannedModel, kernels: Kernels? = nil, cores: Int = ProcessInfo.processInfo.activeProcessorCount
    ) {
        self.model = model
        self.kernels = kernels ?? .best.computing(in: model.weights == .f32 ? .f32 : .bf16)
        self.cores = min(max(cores, 1), Cluster.maxDevices)
    }

    /// Measures products, experts, index scores and attention at the model's sizes, one thread by the processor time it got,
    /// and main memory on all cores at once.
    ///
    /// - Throws: `CommandError` where the model has no operations to measure.
    func hardware(name: String) throws -> Hardware {
        let shapes = try KernelShapes(model.description, ranks: 1)
        let bed = KernelBed(kernels: kernels, cold: ColdMemory(bytes: 512 << 20), scratch: Scratch())
        let meter = PeakMeter(kernels, memory: bed.cold)
        let stored: DType = model.weights == .f32 ? .f32 : model.weights == .bf16 ? .bf16 : .fp8
        let cases = shapes.cases(bed).filter { isRead($0, stored) }
        let progress = ProgressBar("\(cases.count) operations")
        let measured = cases.enumerated().map { number, measured in
            defer { progress.update(Double(number + 1) / Double(cases.count)) }
            return KernelMeasurement(measured, repetitions: repetitions, beside: meter)
        }
        progress.finish()
        let memory = MachinePeaks(kernels, threads: cores, repetitions: repetitions).memory / Double(cores)
        return Self.hardware(name, measured, memory: memory, cores: cores, kernels)
    }

    /// Tells whether an operation tells a rate: many rows are bounded by operations, one row by bytes.
    private func isRead(_ measured: KernelCase, _ stored: DType) -> Bool {
        switch measured.operation {
        case "matmul": measured.type == stored && (measured.rows == 512 || measured.rows == 1)
        case "experts": measured.rows == 512
        case "index scores", "sparse attention": measured.type == .f32
        default: false
        }
    }

    private static func hardware(
        _ name: String, _ measured: [KernelMeasurement], memory: Double, cores: Int, _ kernels: Kernels
    ) -> Hardware {
        func rate(_ isMeant: (KernelCase) -> Bool, _ amount: (KernelCase) -> Double) -> Double? {
            let meant = measured.filter { isMeant($0.measured) }
            let seconds = meant.reduce(0) { $0 + $1.seconds.median! }
            return meant.isEmpty ? nil : meant.reduce(0) { $0 + amount($1.measured) } / seconds
        }
        let products = rate({ $0.rows == 512 }, \.operations)!
        let reading = rate({ $0.operation == "matmul" && $0.rows == 1 }, \.bytes)!
        var efficiencies = Efficiencies.measured
        efficiencies.index =
            (rate({ $0.operation == "index scores" && $0.rows == 64 }, \.operations) ?? products) / products
        efficiencies.attention = (rate({ $0.operation == "sparse attention" }, \.operations) ?? products) / products
        // All cores read at the same time; a kernel reads no faster than it does alone.
        efficiencies.memory = min(reading / memory, 1)
        return Hardware(
            name: name, title: "a core of this machine (\(kernels.level.rawValue), \(kernels.profile.name))",
            memoryBytes: Double(ProcessInfo.processInfo.physicalMemory) / Double(cores), bandwidth: memory,
            rates: [.f32: products, .bf16: products], linkBandwidth: memory / 2, devicesPerHost: cores,
            efficiencies: efficiencies,
            source: "braid plan --measure; links: half of what memory gives a core, for it is read and written")
    }
}
