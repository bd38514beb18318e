import Foundation
import Parallelism
package import Planning
import Tensors

/// This machine as devices to plan for, where none are named.
package struct ThisMachine {
    /// One core of this machine as a device: the rank of a plan.
    package let core: Hardware
    /// What is assumed of it, and how to change that: the first line of a plan.
    package let assumption: String

    package init(_ core: Hardware, _ assumption: String) {
        self.core = core
        self.assumption = assumption
    }

    /// Where `braid plan --measure auto` writes; `nil` for a user without a cache directory.
    package static func standardPath(_ environment: [String: String] = ProcessInfo.processInfo.environment) -> String? {
        TuningFile.cachePath("plan", environment)
    }

    /// Takes what `--measure auto` measured, if there is a file, or else the cores' peaks, which takes a second.
    ///
    /// - Throws: `CommandError` or `HardwareError` where a file cannot be used.
    init(measured path: String? = Self.standardPath()) throws {
        if let path, FileManager.default.fileExists(atPath: path) {
            core = try Hardware(file: path, option: "--measure auto")
            assumption = "this machine as \(path) measured it; \(Self.advice)"
        } else {
            core = try Self.byPeaks(cores: ProcessInfo.processInfo.activeProcessorCount)
            assumption =
                "this machine by its peaks, of which kernels reach what they reach elsewhere; --measure auto measures "
                + "them, \(Self.advice)"
        }
    }

    private static let advice = "--hardware plans for others, such as h20x8"

    /// Degrees above this do not give the bits of one rank.
    private static let maxRanks = 8

    /// As many ranks as there are cores, up to eight, each with as many threads as that leaves it cores.
    ///
    /// - Parameter canHave: tells whether any layout of so many ranks is legal; one rank always is.
    package func cluster(_ canHave: (Cluster) -> Bool) -> Cluster {
        let cores = core.devicesPerHost
        let clusters = [8, 4, 2].filter { $0 <= min(cores, Self.maxRanks) }.map {
            Cluster(core.joined(cores / $0), devices: $0)
        }
        return clusters.first(where: canHave) ?? Cluster(core.joined(cores), devices: 1)
    }

    private static func byPeaks(cores: Int) throws -> Hardware {
        let kernels = Kernels.best.computing(in: .bf16)
        let peaks = MachinePeaks(kernels, threads: cores, repetitions: 3, memoryBytes: 64 << 20)
        var rates: [Hardware.ElementType: Double] = [.f32: peaks.multiplyAdds / Double(cores)]
        rates[.bf16] = peaks.tileDots.map { $0 / Double(cores) }
        let memory = peaks.memory / Double(cores)
        var efficiencies = Efficiencies.measured
        efficiencies.memory = Efficiencies().memory
        return Hardware(
            name: "this-machine", title: "a core of this machine (\(kernels.level.rawValue), peaks)",
            memoryBytes: Double(HostMemory.current.total) / Double(cores), bandwidth: memory,
            rates: rates, kernels: try KernelTable.ofBraid(kernels.level), linkBandwidth: memory / 2,
            devicesPerHost: min(cores, Cluster.maxDevices), efficiencies: efficiencies,
            source: "peaks of all cores at once; links: half of what memory gives a core, for it is read and written")
    }
}

extension KernelTable {
    /// What Braid's kernels of a level make of a processor, from the table that the program carries.
    static func ofBraid(_ level: Kernels.Level) throws -> KernelTable {
        try HardwareTable.builtIn().classes[level == .amx ? "amx" : "vectors"]!
    }
}
