import Foundation
package import JSON

/// What was fitted of the efficiencies of each family of devices, as `Data/calibration.json` has it.
package struct EfficiencyTable: Sendable {
    package var families: [String: [Efficiencies.Fitted: Double]]

    package init(families: [String: [Efficiencies.Fitted: Double]]) { self.families = families }

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
            for fitted in Efficiencies.Fitted.allCases {
                if let value = entry.value[fitted.rawValue]?.double {
                    families[entry.key, default: [:]][fitted] = value * fitted.unit
                }
            }
        }
    }

    /// The efficiencies of a device; where its family was never fitted, those of the one of its kind that was, as a guess.
    package subscript(hardware: Hardware) -> Efficiencies {
        if let measured = hardware.efficiencies { return measured }
        let fallback = hardware.kind == .accelerator ? "h20" : "xeon-6980p"
        var efficiencies = Efficiencies(for: hardware.kind)
        for (fitted, value) in families[hardware.family] ?? families[fallback] ?? [:] {
            efficiencies[keyPath: fitted.path] = value
        }
        return efficiencies
    }

    /// With four digits of every number, as the file has them. Rounding to three would move predictions by a quarter of a
    /// percent.
    func rounded() -> EfficiencyTable {
        EfficiencyTable(
            families: families.mapValues { numbers in
                Dictionary(
                    uniqueKeysWithValues: numbers.map { fitted, value in
                        let number = value / fitted.unit
                        let step = pow(10, floor(log10(number)) - 3)
                        return (fitted, (number / step).rounded() * step * fitted.unit)
                    })
            })
    }

    /// The numbers by family, in the file's units.
    package var json: JSONValue {
        .object(
            families.sorted { $0.key < $1.key }.map { family, numbers in
                JSONMember(
                    family,
                    .object(
                        Efficiencies.Fitted.allCases.compactMap { fitted in
                            numbers[fitted].map {
                                JSONMember(fitted.rawValue, .real(($0 / fitted.unit * 1e4).rounded() / 1e4))
                            }
                        }))
            })
    }
}
