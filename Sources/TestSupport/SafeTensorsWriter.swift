import Foundation

/// Writes small safetensors files for tests, valid and invalid ones.
package struct SafeTensorsWriter {
    /// The strings of `__metadata__`; the key is left out if there are none.
    package var metadata: [String: String] = [:]
    private var entries: [(name: String, type: String, shape: [Int], bytes: [UInt8])] = []

    package init() {}

    package init(_ entries: [(name: String, type: String, shape: [Int], bytes: [UInt8])]) { self.entries = entries }

    /// Adds a tensor, whose bytes follow those of earlier tensors. It checks nothing, so that invalid files can be
    /// written.
    package mutating func add(_ name: String, _ type: String, _ shape: [Int], _ bytes: [UInt8]) {
        entries.append((name, type, shape, bytes))
    }

    /// Adds an F32 tensor.
    package mutating func add(_ name: String, _ shape: [Int], _ values: [Float]) {
        add(name, "F32", shape, values.flatMap { Self.littleEndian($0.bitPattern) })
    }

    /// Returns the file: a header padded with spaces to a multiple of 8 bytes, then the tensors in the order in which
    /// they were added.
    package func encoded() -> [UInt8] {
        var members: [String] = []
        if !metadata.isEmpty {
            let pairs = metadata.sorted { $0.key < $1.key }.map { "\(Self.quoted($0.key)):\(Self.quoted($0.value))" }
            members.append("\"__metadata__\":{\(pairs.joined(separator: ","))}")
        }
        var data: [UInt8] = []
        for entry in entries {
            let shape = entry.shape.map(String.init).joined(separator: ",")
            let offsets = "\(data.count),\(data.count + entry.bytes.count)"
            let fields = "\"dtype\":\"\(entry.type)\",\"shape\":[\(shape)],\"data_offsets\":[\(offsets)]"
            members.append("\(Self.quoted(entry.name)):{\(fields)}")
            data += entry.bytes
        }
        let header = "{\(members.joined(separator: ","))}"
        let padding = (8 - header.utf8.count % 8) % 8
        return Self.encoded(header: header + String(repeating: " ", count: padding), data: data)
    }

    package func write(to path: String) throws { try Self.write(encoded(), to: path) }

    /// Returns a file with exactly this header and data; `headerLength` may be wrong on purpose.
    package static func encoded(header: String, data: [UInt8] = [], headerLength: UInt64? = nil) -> [UInt8] {
        encoded(header: Array(header.utf8), data: data, headerLength: headerLength)
    }

    /// Returns a file with exactly this header, which need not be text, and data.
    package static func encoded(header: [UInt8], data: [UInt8] = [], headerLength: UInt64? = nil) -> [UInt8] {
        littleEndian(headerLength ?? UInt64(header.count)) + header + data
    }

    package static func write(_ bytes: [UInt8], to path: String) throws {
        try Data(bytes).write(to: URL(fileURLWithPath: path))
    }

    /// Returns the bytes of a number, lowest first.
    package static func littleEndian<Number: FixedWidthInteger>(_ number: Number) -> [UInt8] {
        (0..<Number.bitWidth / 8).map { UInt8(truncatingIfNeeded: number >> ($0 * 8)) }
    }

    private static func quoted(_ text: String) -> String {
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": quoted += "\\\(scalar)"
            case _ where scalar.value < 0x20:
                let digits = String(scalar.value, radix: 16)
                quoted += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }
}
