package import JSON

extension Hardware {
    /// Reads a description: an object of `Data/hardware.json`, or a file that `braid plan --measure` wrote.
    ///
    /// - Parameter classes: the kernels of named classes; `nil` takes those that the program carries.
    /// - Throws: `HardwareError` naming the key and what is expected.
    package init(_ json: JSONValue, classes: [String: KernelTable]? = nil) throws(HardwareError) {
        let reader = HardwareReader(json: json)
        name = try reader.text("name")
        title = try reader.text("title")
        guard let kind = Kind(rawValue: try reader.text("kind")) else {
            throw HardwareError("hardware: 'kind' is neither accelerator nor processor")
        }
        self.kind = kind
        family = try reader.text("family")
        memoryBytes = try reader.number("memory_gb", in: 0.001...1e6) * 1e9
        bandwidth = try reader.number("bandwidth_gb_s", in: 0.001...1e6) * 1e9
        linkBandwidth = try reader.number("link_gb_s", in: 0.001...1e6) * 1e9
        hostLinkBandwidth = try reader.number("host_link_gb_s", in: 0.001...1e6) * 1e9
        devicesPerHost = try reader.count("devices_per_host")
        cores = json["cores"] == nil ? 1 : try reader.count("cores")
        source = try reader.text("source")
        efficiencies = try json["efficiency"].map { entry throws(HardwareError) in try Efficiencies(measured: entry) }
        rates = try reader.rates()
        kernels = try reader.kernels(classes)
    }

    /// The same as a file has it.
    package var json: JSONValue {
        var members = JSONMember.list([
            "name": .string(name), "title": .string(title), "kind": .string(kind.rawValue), "family": .string(family),
            "cores": .integer(cores), "memory_gb": .real(memoryBytes / 1e9), "bandwidth_gb_s": .real(bandwidth / 1e9),
            "tflops": .object(
                ElementType.allCases.compactMap { type in
                    rates[type].map { JSONMember(type.rawValue, .real($0 / 1e12)) }
                }),
            "kernels": kernels.json,
            "link_gb_s": .real(linkBandwidth / 1e9), "host_link_gb_s": .real(hostLinkBandwidth / 1e9),
            "devices_per_host": .integer(devicesPerHost), "source": .string(source),
        ])
        if let efficiencies { members.append(JSONMember("efficiency", efficiencies.json)) }
        return .object(members)
    }
}

/// Reads the members of a description of hardware.
private struct HardwareReader {
    let json: JSONValue

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

    func count(_ key: String) throws(HardwareError) -> Int {
        guard let value = json[key]?.integer, (1...1024).contains(value) else {
            throw HardwareError("hardware: '\(key)' is missing or is no number from 1 to 1024")
        }
        return value
    }

    func rates() throws(HardwareError) -> [Hardware.ElementType: Double] {
        var rates: [Hardware.ElementType: Double] = [:]
        for member in json["tflops"]?.object ?? [] {
            guard let type = Hardware.ElementType(rawValue: member.key), let rate = member.value.double,
                (1e-6...1e6).contains(rate)
            else {
                throw HardwareError(
                    "hardware: 'tflops' has '\(member.key)', which is no rate of "
                        + Hardware.ElementType.allCases.map(\.rawValue).joined(separator: ", "))
            }
            rates[type] = rate * 1e12
        }
        if rates[.f32] == nil && rates[.bf16] == nil {
            throw HardwareError("hardware: 'tflops' has neither f32 nor bf16")
        }
        return rates
    }

    /// The device's own kernels, or those of its class.
    func kernels(_ known: [String: KernelTable]?) throws(HardwareError) -> KernelTable {
        if let own = json["kernels"] { return try KernelTable(own) }
        guard let classes = known else { return try kernels(HardwareTable.builtIn().classes) }
        guard let kernels = classes[json["class"]?.string ?? ""] else {
            throw HardwareError(
                "hardware: 'class' is none of \(classes.keys.sorted().joined(separator: ", ")), and there are no "
                    + "'kernels'; braid plan --measure writes them")
        }
        return kernels
    }
}

extension JSONValue {
    /// A finite number; `null` for others.
    static func real(_ value: Double) -> JSONValue { JSONNumber(value).map(JSONValue.number) ?? .null }
}
