package import JSON

/// One kind of device as numbers: what it can compute, keep and move at most.
///
/// A device is what one rank has: an accelerator, a socket, a NUMA domain.
package struct Hardware: Sendable, Equatable {
    package enum Kind: String, Sendable {
        /// Ranks have a memory each, and keep everything they read in it.
        case accelerator
        /// The ranks of a host share its memory, and a process maps weights once.
        case processor
    }

    /// How an operand of a product is kept, which decides how fast it is multiplied.
    package enum ElementType: String, Sendable, CaseIterable {
        case f32, bf16, fp8, int8

        /// Bytes of one element, scales not counted.
        package var bytes: Double {
            switch self {
            case .f32: 4
            case .bf16: 2
            case .fp8, .int8: 1
            }
        }
    }

    package var name: String
    package var title: String
    package var kind: Kind
    /// Devices of a family have the same efficiencies: `Efficiencies`.
    package var family: String
    package var memoryBytes: Double
    /// Bytes a second of the device's memory.
    package var bandwidth: Double
    /// Operations a second, dense; a multiplication and an addition are two.
    package var rates: [ElementType: Double]
    /// Bytes a second, one way, to the other devices of the host.
    package var linkBandwidth: Double
    /// The same to devices of other hosts.
    package var hostLinkBandwidth: Double
    package var devicesPerHost: Int
    /// Where the numbers come from.
    package var source: String
    /// What `braid plan --measure` found that its operations reach of those rates; `nil` for a data sheet's numbers.
    package var efficiencies: Efficiencies?

    /// A device that was measured, of a host whose ranks share its memory.
    package init(
        name: String, title: String, memoryBytes: Double, bandwidth: Double, rates: [ElementType: Double],
        linkBandwidth: Double, devicesPerHost: Int, efficiencies: Efficiencies, source: String
    ) {
        self.name = name
        self.title = title
        kind = .processor
        family = "measured"
        self.memoryBytes = memoryBytes
        self.bandwidth = bandwidth
        self.rates = rates
        self.linkBandwidth = linkBandwidth
        // Another host was not measured: 10 Gbit/s.
        hostLinkBandwidth = 1.25e9
        self.devicesPerHost = devicesPerHost
        self.efficiencies = efficiencies
        self.source = source
    }

    /// Operations a second of products with such weights: types without a rate are widened to the next that has one.
    package func rate(_ type: ElementType) -> Double {
        let wider: [ElementType] =
            switch type {
            case .fp8: [.fp8, .bf16, .f32]
            case .int8: [.int8, .bf16, .f32]
            case .bf16: [.bf16, .f32]
            case .f32: [.f32, .bf16]
            }
        return wider.lazy.compactMap { rates[$0] }.first!
    }

    /// Several of these as one device, for a rank with as many threads: they share its work without loss.
    package func joined(_ count: Int) -> Hardware {
        precondition(count > 0, "\(count) devices as one")
        guard count > 1 else { return self }
        var joined = self
        joined.title = "\(count) of \(title)"
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

extension Hardware {
    /// Reads a description: an object of `Data/hardware.json`, or a file that `braid plan --measure` wrote.
    ///
    /// - Throws: `HardwareError` naming the key and what is expected.
    package init(_ json: JSONValue) throws(HardwareError) {
        func text(_ key: String) throws(HardwareError) -> String {
            guard let value = json[key]?.string, !value.isEmpty else {
                throw HardwareError("hardware: '\(key)' is missing or is no text")
            }
            return value
        }
        func number(_ key: String, in range: ClosedRange<Double>) throws(HardwareError) -> Double {
            guard let value = json[key]?.double, range.contains(value) else {
                throw HardwareError(
                    "hardware: '\(key)' is missing or is no number from \(range.lowerBound) to \(range.upperBound)")
            }
            return value
        }
        name = try text("name")
        title = try text("title")
        guard let kind = Kind(rawValue: try text("kind")) else {
            throw HardwareError("hardware: 'kind' is neither accelerator nor processor")
        }
        self.kind = kind
        family = try text("family")
        memoryBytes = try number("memory_gb", in: 0.001...1e6) * 1e9
        bandwidth = try number("bandwidth_gb_s", in: 0.001...1e6) * 1e9
        linkBandwidth = try number("link_gb_s", in: 0.001...1e6) * 1e9
        hostLinkBandwidth = try number("host_link_gb_s", in: 0.001...1e6) * 1e9
        let devices = json["devices_per_host"]?.integer ?? 0
        guard (1...1024).contains(devices) else {
            throw HardwareError("hardware: 'devices_per_host' is missing or is no number from 1 to 1024")
        }
        devicesPerHost = devices
        source = try text("source")
        efficiencies = try json["efficiency"].map { entry throws(HardwareError) in try Efficiencies(measured: entry) }
        rates = [:]
        for member in json["tflops"]?.object ?? [] {
            guard let type = ElementType(rawValue: member.key), let rate = member.value.double,
                (1e-6...1e6).contains(rate)
            else {
                throw HardwareError("hardware: 'tflops' has '\(member.key)', which is no rate of f32, bf16, fp8, int8")
            }
            rates[type] = rate * 1e12
        }
        if rates[.f32] == nil && rates[.bf16] == nil {
            throw HardwareError("hardware: 'tflops' has neither f32 nor bf16")
        }
    }

    /// The same as a file has it.
    package var json: JSONValue {
        .object(members)
    }

    private var members: [JSONMember] {
        JSONMember.list([
            "name": .string(name), "title": .string(title), "kind": .string(kind.rawValue), "family": .string(family),
            "memory_gb": .real(memoryBytes / 1e9), "bandwidth_gb_s": .real(bandwidth / 1e9),
            "tflops": .object(
                ElementType.allCases.compactMap { type in
                    rates[type].map { JSONMember(type.rawValue, .real($0 / 1e12)) }
                }),
            "link_gb_s": .real(linkBandwidth / 1e9), "host_link_gb_s": .real(hostLinkBandwidth / 1e9),
            "devices_per_host": .integer(devicesPerHost), "source": .string(source),
        ]) + (efficiencies.map { [JSONMember("efficiency", $0.json)] } ?? [])
    }
}

extension JSONValue {
    /// A finite number; `null` for others.
    static func real(_ value: Double) -> JSONValue { JSONNumber(value).map(JSONValue.number) ?? .null }
}
