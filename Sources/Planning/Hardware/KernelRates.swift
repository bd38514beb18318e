import JSON

/// How the kernels of the engine that runs on a device use it, for operands of one type.
///
/// Engines for accelerators and Braid on processors differ here, whatever the device's data sheet says.
package struct KernelRates: Sendable, Equatable {
    /// The number of rows that a product multiplies at a time; fewer take as long.
    package var rowTile = 1.0
    /// The same for the rows of one routed expert.
    package var expertTile = 1.0
    /// The fractions of the device's rate that products, index scores and attention reach. They are 1 where those of a
    /// family of devices are fitted (`Efficiencies`).
    package var products = 1.0
    package var index = 1.0
    package var attention = 1.0

    package init() {}

    private static var numbers: [(String, WritableKeyPath<KernelRates, Double>)] {
        [
            ("row_tile", \.rowTile), ("expert_tile", \.expertTile), ("products", \.products), ("index", \.index),
            ("attention", \.attention),
        ]
    }

    /// - Throws: `HardwareError` naming the key that is none of these, or no positive number.
    init(_ json: JSONValue, of type: Hardware.ElementType) throws(HardwareError) {
        for member in json.object ?? [] {
            guard let path = Self.numbers.first(where: { $0.0 == member.key })?.1, let value = member.value.double,
                value > 0, value <= 1e4
            else {
                throw HardwareError(
                    "hardware: 'kernels' has '\(member.key)' for \(type.rawValue), which is no positive "
                        + Self.numbers.map(\.0).joined(separator: ", "))
            }
            self[keyPath: path] = value
        }
    }

    /// The same as a file has it, without what is 1.
    var json: JSONValue {
        .object(
            Self.numbers.filter { self[keyPath: $0.1] != 1 }.map {
                JSONMember($0.0, .real(self[keyPath: $0.1]))
            })
    }

    /// Returns the rows that a product of some rows takes as long as.
    func multiplied(_ rows: Double, by tile: KeyPath<KernelRates, Double>) -> Double {
        let tile = self[keyPath: tile]
        return tile > 1 ? (rows / tile).rounded(.up) * tile : rows
    }
}

/// The kernels of a class of devices, by the type of their operands.
package typealias KernelTable = [Hardware.ElementType: KernelRates]

extension KernelTable {
    /// Reads an object such as `{"f32": {"products": 0.8}, "bf16": {"row_tile": 16}}`.
    init(_ json: JSONValue) throws(HardwareError) {
        self = [:]
        for member in json.object ?? [] {
            guard let type = Hardware.ElementType(rawValue: member.key) else {
                throw HardwareError(
                    "hardware: 'kernels' has '\(member.key)', which is none of "
                        + Hardware.ElementType.allCases.map(\.rawValue).joined(separator: ", "))
            }
            self[type] = try KernelRates(member.value, of: type)
        }
        if self[.f32] == nil && self[.bf16] == nil {
            throw HardwareError("hardware: 'kernels' has neither f32 nor bf16")
        }
    }

    /// The kernels of a run whose products all have operands of one type, whatever the weights are; all where there are none
    /// for it.
    package func all(in type: Hardware.ElementType) -> KernelTable { self[type].map { [type: $0] } ?? self }

    var json: JSONValue {
        .object(
            Hardware.ElementType.allCases.compactMap { type in
                self[type].map { JSONMember(type.rawValue, $0.json) }
            })
    }
}
