import Foundation
import Modeling
import Parallelism
import Planning
import Tensors

/// What a rank of this machine does with a model's operations: a device to plan for, a core each.
struct PlanMeasurement {
    private let model: PlannedModel
    private let kernels: [Kernels]
    private let cores: Int
    private let repetitions = 5

    /// - Parameter kernels: The kernels to measure; `nil` takes the best in both numerics profiles.
    init(
        _ model: PlannedModel, kernels: Kernels? = nil, cores: Int = ProcessInfo.processInfo.activeProcessorCount
    ) {
        self.model = model
        self.kernels = kernels.map { [$0] } ?? [.best.computing(in: .f32), .best.computing(in: .bf16)]
        self.cores = min(max(cores, 1), Cluster.maxDevices)
    }

    /// Returns the kernels that serve such a model by default.
    static func usualKernels(for model: PlannedModel) -> Kernels {
        .best.computing(in: model.weights == .f32 ? .f32 : .bf16)
    }

    /// Measures products, experts, index scores and attention at the model's sizes, one thread by the processor time it got,
    /// and main memory on all cores at once.
    ///
    /// - Throws: `CommandError` where the model has no operations to measure, and `MemoryError`.
    func hardware(name: String) throws -> Hardware {
        let shapes = try KernelShapes(model.description, ranks: 1)
        let cold = ColdMemory(bytes: 512 << 20)
        let measured = try kernels.map { kernels in
            try ProfileMeasurement(
                kernels, shapes, KernelBed(kernels: kernels, cold: cold, scratch: .forBenchmark()),
                stored: model.formats.products.dtype, repetitions: repetitions)
        }
        let memory = MachinePeaks(kernels[0], threads: cores, repetitions: repetitions).memory / Double(cores)
        let usual = measured.first { $0.type == (model.weights == .f32 ? .f32 : .bf16) } ?? measured[0]
        var efficiencies = Efficiencies.measured
        // All cores read at the same time; a kernel reads no faster than it does alone.
        efficiencies.memory = min(usual.reading / memory, 1)
        let profiles = kernels.map(\.profile.name).joined(separator: ", ")
        return Hardware(
            name: name, title: "a core of this machine (\(kernels[0].level.rawValue), \(profiles))",
            memoryBytes: Double(HostMemory.current.total) / Double(cores), bandwidth: memory,
            rates: Dictionary(uniqueKeysWithValues: measured.map { ($0.type, $0.products) }),
            kernels: Dictionary(uniqueKeysWithValues: measured.map { ($0.type, $0.rates) }),
            linkBandwidth: memory / 2, devicesPerHost: cores, efficiencies: efficiencies,
            source: "braid plan --measure; links: half of what memory gives a core, for it is read and written")
    }
}

/// What one thread does with a model's operations in one numerics profile.
private struct ProfileMeasurement {
    /// The type that operands are rounded to.
    let type: Hardware.ElementType
    /// Operations a second of products of many rows, and bytes a second of products of one.
    let products: Double
    let reading: Double
    /// Index scores and attention as fractions of those operations.
    let rates: KernelRates

    init(
        _ kernels: Kernels, _ shapes: KernelShapes, _ bed: KernelBed, stored: DType, repetitions: Int
    ) throws {
        let meter = PeakMeter(kernels, memory: bed.cold)
        let cases = shapes.cases(bed).filter { Self.isRead($0, stored) }
        let progress = ProgressBar("\(cases.count) operations in \(kernels.profile.name)")
        let measured = cases.enumerated().map { number, measured in
            defer { progress.update(Double(number + 1) / Double(cases.count)) }
            return KernelMeasurement(measured, repetitions: repetitions, beside: meter)
        }
        progress.finish()
        func rate(_ isMeant: (KernelCase) -> Bool, _ amount: (KernelCase) -> Double) -> Double? {
            let meant = measured.filter { isMeant($0.measured) }
            let seconds = meant.reduce(0) { $0 + $1.seconds.median! }
            return meant.isEmpty ? nil : meant.reduce(0) { $0 + amount($1.measured) } / seconds
        }
        type = kernels.profile == .f32 ? .f32 : .bf16
        products = rate({ $0.rows == 512 }, \.operations)!
        reading = rate({ $0.operation == "matmul" && $0.rows == 1 }, \.bytes)!
        // How many rows are multiplied at a time is a fact of the kernels, not of this processor.
        var rates = try KernelTable.ofBraid(kernels.level)[type]!
        rates.products = 1
        rates.index =
            (rate({ $0.operation == "index scores" && $0.rows == 64 }, \.operations) ?? products) / products
        rates.attention = (rate({ $0.operation == "sparse attention" }, \.operations) ?? products) / products
        self.rates = rates
    }

    /// Tells whether an operation tells a rate: many rows are bounded by operations, one row by bytes.
    private static func isRead(_ measured: KernelCase, _ stored: DType) -> Bool {
        switch measured.operation {
        case "matmul": measured.type == stored && (measured.rows == 512 || measured.rows == 1)
        case "experts": measured.rows == 512
        case "index scores", "sparse attention": measured.type == .f32
        default: false
        }
    }
}
