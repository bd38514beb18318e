import JSON

/// Devices that ranks run on.
package struct Cluster: Sendable, Equatable {
    package var hardware: Hardware
    package var devices: Int

    package init(_ hardware: Hardware, devices: Int) {
        precondition((1...1024).contains(devices), "\(devices) devices")
        self.hardware = hardware
        self.devices = devices
    }

    /// The most devices a cluster may have.
    package static let maxDevices = 1024

    /// Reads `h20x8`: a name of the table and a number of devices, one without a number.
    ///
    /// - Throws: `HardwareError` that lists the names.
    package init(name text: String) throws(HardwareError) {
        let table = try HardwareTable.builtIn()
        if let hardware = table[text] {
            self.init(hardware, devices: 1)
            return
        }
        guard let cross = text.lastIndex(of: "x"), let devices = Int(text[text.index(after: cross)...]),
            (1...Self.maxDevices).contains(devices), let hardware = table[String(text[..<cross])]
        else {
            throw HardwareError(
                "--hardware: '\(text)' is neither a file nor a name with a number of devices from 1 to "
                    + "\(Self.maxDevices), such as h20x8; names are \(table.names.joined(separator: ", "))")
        }
        self.init(hardware, devices: devices)
    }

    package var hosts: Int { (devices + hardware.devicesPerHost - 1) / hardware.devicesPerHost }
}

/// The devices that are known without a file.
package struct HardwareTable: Sendable {
    package let devices: [Hardware]
    /// The kernels of the engines for each class of devices.
    package let classes: [String: KernelTable]
    private let aliases: [String: Int]

    /// What the program carries, from `Data/hardware.json`.
    package static func builtIn() throws(HardwareError) -> HardwareTable {
        try HardwareTable(PackageResources.hardware_json)
    }

    init(_ bytes: [UInt8]) throws(HardwareError) {
        let file: JSONValue
        do throws(JSONError) {
            file = try JSONValue(parsing: bytes, limits: .strict)
        } catch {
            throw HardwareError("hardware.json: \(error)")
        }
        var classes: [String: KernelTable] = [:]
        for entry in file["classes"]?.array ?? [] {
            classes[entry["name"]?.string ?? ""] = try KernelTable(entry["kernels"] ?? .null)
        }
        var devices: [Hardware] = []
        var aliases: [String: Int] = [:]
        for (index, entry) in (file["devices"]?.array ?? []).enumerated() {
            devices.append(try Hardware(entry, classes: classes))
            for name in entry["aliases"]?.array ?? [] { aliases[name.string ?? ""] = index }
        }
        self.devices = devices
        self.classes = classes
        self.aliases = aliases
    }

    package var names: [String] { devices.map(\.name) }

    package subscript(name: String) -> Hardware? {
        devices.first { $0.name == name } ?? aliases[name].map { devices[$0] }
    }
}
