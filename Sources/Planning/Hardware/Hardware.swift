package import Tensors

/// One kind of device as numbers: what it can compute, keep and move at most.
///
/// A device is what one rank has: an accelerator, a socket, a NUMA domain, a core.
package struct Hardware: Sendable, Equatable {
    package enum Kind: String, Sendable {
        /// Ranks have a memory each, and keep everything they read in it.
        case accelerator
        /// The ranks of a host share its memory, and a process maps weights once.
        case processor
    }

    /// How an operand of a product is kept, which decides how fast it is multiplied.
    package enum ElementType: String, Sendable, CaseIterable {
        case f32, bf16, fp8, int8, fp4

        /// The type of stored weights.
        package init(_ stored: DType) {
            switch stored {
            case .f32: self = .f32
            case .bf16: self = .bf16
            case .fp8: self = .fp8
            case .int8: self = .int8
            case .fp4: self = .fp4
            }
        }

        package var stored: DType {
            switch self {
            case .f32: .f32
            case .bf16: .bf16
            case .fp8: .fp8
            case .int8: .int8
            case .fp4: .fp4
            }
        }

        /// The types that its elements can be widened to, itself first, in the order of preference.
        var widened: [ElementType] {
            switch self {
            case .fp4: [.fp4, .fp8, .bf16, .f32]
            case .fp8: [.fp8, .bf16, .f32]
            case .int8: [.int8, .bf16, .f32]
            case .bf16: [.bf16, .f32]
            case .f32: [.f32, .bf16]
            }
        }
    }

    package var name: String
    package var title: String
    package var kind: Kind
    /// Devices of a family have the same efficiencies: `Efficiencies`.
    package var family: String
    /// The number of cores of a processor's device: a rank has a thread for each.
    package var cores: Int
    package var memoryBytes: Double
    /// Bytes a second of the device's memory.
    package var bandwidth: Double
    /// Operations a second, dense; a multiplication and an addition are two.
    package var rates: [ElementType: Double]
    /// How the engine's kernels use it, by the type of operands that they multiply.
    package var kernels: KernelTable
    /// Bytes a second, one way, to the other devices of the host.
    package var linkBandwidth: Double
    /// The same to devices of other hosts.
    package var hostLinkBandwidth: Double
    package var devicesPerHost: Int
    /// Where the numbers come from.
    package var source: String
    /// What `braid plan --measure` found beside those rates; `nil` for a data sheet's numbers.
    package var efficiencies: Efficiencies?

    /// A core of this machine, whose ranks share its memory.
    package init(
        name: String, title: String, memoryBytes: Double, bandwidth: Double, rates: [ElementType: Double],
        kernels: KernelTable, linkBandwidth: Double, devicesPerHost: Int, efficiencies: Efficiencies, source: String
    ) {
        self.name = name
        self.title = title
        kind = .processor
        family = "measured"
        cores = 1
        self.memoryBytes = memoryBytes
        self.bandwidth = bandwidth
        self.rates = rates
        self.kernels = kernels
        self.linkBandwidth = linkBandwidth
        // Another host was not measured: 10 Gbit/s.
        hostLinkBandwidth = 1.25e9
        self.devicesPerHost = devicesPerHost
        self.efficiencies = efficiencies
        self.source = source
    }

    /// The kernels that multiply such weights: weights without any of their own are widened to a type that has.
    func kernels(for weights: ElementType) -> KernelRates { kernels[operand(of: weights)]! }

    private func operand(of weights: ElementType) -> ElementType {
        weights.widened.first { kernels[$0] != nil }!
    }

    /// Operations a second that kernels reach with such weights. Kernels whose type has no rate of its own, as those that
    /// round to BF16 on a processor without instructions for it, compute at that of the next type that has one.
    package func rate(
        _ weights: ElementType, of work: KeyPath<KernelRates, Double> = \.products
    ) -> Double {
        let operand = operand(of: weights)
        return operand.widened.lazy.compactMap { rates[$0] }.first! * kernels[operand]![keyPath: work]
    }

    /// Several of these as one device, for a rank with as many threads: they share its work without loss.
    package func joined(_ count: Int) -> Hardware {
        precondition(count > 0, "\(count) devices as one")
        guard count > 1 else { return self }
        var joined = self
        joined.title = "\(count) of \(title)"
        joined.cores *= count
        joined.memoryBytes *= Double(count)
        joined.bandwidth *= Double(count)
        joined.linkBandwidth *= Double(count)
        joined.rates = rates.mapValues { $0 * Double(count) }
        joined.devicesPerHost = max(devicesPerHost / count, 1)
        return joined
    }
}

/// Why a description of hardware is not accepted.
package struct HardwareError: Error, Equatable, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}
