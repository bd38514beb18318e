import Foundation
package import JSON

/// What a family of devices reaches of what its data sheet says, and what its operations cost beside that.
package struct Efficiencies: Sendable, Equatable {
    /// Fractions of the rate of operations that products, index scores and attention reach.
    package var matrix = 0.8
    package var index = 0.8
    /// A published kernel: FlashMLA's sparse prefill reaches 640 of 989 · 10^12 operations a second on H800.
    package var attention = 0.65
    /// Fractions of the bandwidth of memory and of links.
    package var memory = 0.8
    package var link = 0.8
    /// Seconds a host needs to start the operations of one layer of a prefill step; devices wait where they are faster.
    package var launch = 0.0
    /// Seconds of one layer of a decode step beside arithmetic and memory: many small operations.
    package var layer = 0.0
    /// Seconds of a collective without any bytes.
    package var collective = 12e-6
    /// Rows of one expert are multiplied in multiples of this.
    package var expertTile = 128.0

    package init() {}

    /// What measured hardware reaches: all of it, for its numbers are those of the kernels themselves.
    package static let measured: Efficiencies = {
        var all = Efficiencies()
        (all.matrix, all.index, all.attention, all.memory, all.link) = (1, 1, 1, 1, 1)
        (all.collective, all.expertTile) = (5e-6, 1)
        return all
    }()

    /// Reads what a measured device reaches.
    init(measured json: JSONValue) throws(HardwareError) {
        self = .measured
        for number in Fitted.allCases {
            guard let value = json[number.rawValue] else { continue }
            guard let value = value.double, (0...1e6).contains(value), value > 0 || number.unit < 1 else {
                throw HardwareError("hardware: 'efficiency' has '\(number.rawValue)', which is no positive number")
            }
            self[keyPath: number.path] = value * number.unit
        }
    }

    /// The same as a file has it.
    var json: JSONValue {
        .object(Fitted.allCases.map { JSONMember($0.rawValue, .real(self[keyPath: $0.path] / $0.unit)) })
    }

    /// A number that is fitted or measured, and its name in files.
    enum Fitted: String, CaseIterable {
        case matrix, index, attention, memory
        case launch = "launch_us"
        case layer = "layer_us"
        case collective = "collective_us"

        var path: WritableKeyPath<Efficiencies, Double> {
            switch self {
            case .matrix: \.matrix
            case .index: \.index
            case .attention: \.attention
            case .memory: \.memory
            case .launch: \.launch
            case .layer: \.layer
            case .collective: \.collective
            }
        }

        /// Of the number in the file.
        var unit: Double { rawValue.hasSuffix("_us") ? 1e-6 : 1 }
    }
}

/// The efficiencies of all families, as `Data/calibration.json` has them.
package struct EfficiencyTable: Sendable {
    package var families: [String: Efficiencies]

    package init(families: [String: Efficiencies]) { self.families = families }

    package static func builtIn() throws(HardwareError) -> EfficiencyTable {
        try EfficiencyTable(PackageResources.calibration_json)
    }

    init(_ bytes: [UInt8]) throws(HardwareError) {
        families = [:]
        let entries: [JSONMember]
        do throws(JSONError) {
            entries = try JSONValue(parsing: bytes, limits: .strict)["families"]?.object ?? []
        } catch {
            throw HardwareError("calibration.json: \(error)")
        }
        for entry in entries {
            var efficiencies = Efficiencies()
            for fitted in Efficiencies.Fitted.allCases {
                if let value = entry.value[fitted.rawValue]?.double {
                    efficiencies[keyPath: fitted.path] = value * fitted.unit
                }
            }
            families[entry.key] = efficiencies
        }
    }

    /// Those of a device; where its family was never fitted, those of the one accelerator that was, as a guess.
    package subscript(hardware: Hardware) -> Efficiencies {
        if let measured = hardware.efficiencies { return measured }
        if let own = families[hardware.family] { return own }
        let fallback = hardware.kind == .accelerator ? "h20" : "xeon-6980p"
        return families[fallback] ?? Efficiencies()
    }
}

extension EfficiencyTable {
    /// With three digits of every fitted number, as the file has them.
    func rounded() -> EfficiencyTable {
        EfficiencyTable(
            families: families.mapValues { efficiencies in
                var rounded = efficiencies
                for fitted in Efficiencies.Fitted.allCases {
                    let value = efficiencies[keyPath: fitted.path] / fitted.unit
                    guard value > 0 else { continue }
                    let step = pow(10, floor(log10(value)) - 2)
                    rounded[keyPath: fitted.path] = (value / step).rounded() * step * fitted.unit
                }
                return rounded
            })
    }

    /// The numbers that differ from those nothing was fitted for, by family.
    package var json: JSONValue {
        let usual = Efficiencies()
        return .object(
            families.sorted { $0.key < $1.key }.map { family, efficiencies in
                JSONMember(
                    family,
                    .object(
                        Efficiencies.Fitted.allCases.compactMap { fitted in
                            let value = efficiencies[keyPath: fitted.path]
                            guard value != usual[keyPath: fitted.path] else { return nil }
                            let digits = (value / fitted.unit * 1e4).rounded() / 1e4
                            return JSONMember(fitted.rawValue, .real(digits))
                        }))
            })
    }
}
