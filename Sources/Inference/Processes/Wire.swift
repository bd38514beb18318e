/// A wire codes values as bytes for other processes: fields one after the other, little-endian, without names.
///
/// A type lists its fields once, in `pass`, for both directions. Reading checks every length against the remaining
/// bytes, so its cost is bounded by the size of the message; checking the values is up to the type's user. Both sides
/// run the same build (`Handshake`); the first byte is the format's version.
package struct Wire {
    package private(set) var bytes: [UInt8]
    private var next = 0
    private let isReading: Bool

    /// A failure describes bytes that cannot be read.
    package struct Failure: Error, Equatable, CustomStringConvertible {
        package let description: String

        package init(description: String) { self.description = description }
    }

    private init(bytes: [UInt8], isReading: Bool) {
        self.bytes = bytes
        self.isReading = isReading
    }

    /// The format's version, which must change with every change of a coded type.
    private static let version: UInt8 = 9

    /// Returns the bytes of a value.
    ///
    /// - Parameter first: the bytes that precede them, which are no part of the value.
    package static func bytes(of value: some WireCodable, after first: [UInt8] = []) -> [UInt8] {
        var wire = Wire(bytes: first + [version], isReading: false)
        var value = value
        do {
            try value.pass(&wire)
        } catch {
            preconditionFailure("writing does not fail")
        }
        return wire.bytes
    }

    /// Returns the value that `bytes` contain.
    ///
    /// - Throws: `Wire.Failure` if the bytes are not exactly one value.
    package static func value<Value: WireCodable>(_ type: Value.Type = Value.self, in bytes: [UInt8]) throws(Failure)
        -> Value
    {
        guard bytes.first == version else { throw Failure(description: "the form of another version") }
        var wire = Wire(bytes: bytes, isReading: true)
        wire.next = 1
        var value = Value.empty
        try value.pass(&wire)
        guard wire.next == bytes.count else { throw Failure(description: "\(bytes.count - wire.next) bytes too many") }
        return value
    }

    // MARK: - Fields

    package mutating func pass(_ value: inout UInt64) throws(Failure) {
        guard isReading else { return append(value) }
        value = try take()
    }

    package mutating func pass(_ value: inout Int) throws(Failure) {
        guard isReading else { return append(Int64(value)) }
        value = Int(try take(Int64.self))
    }

    package mutating func pass(_ value: inout Int32) throws(Failure) {
        guard isReading else { return append(value) }
        value = try take()
    }

    package mutating func pass(_ value: inout Float) throws(Failure) {
        guard isReading else { return append(value.bitPattern) }
        value = Float(bitPattern: try take())
    }

    package mutating func pass(_ value: inout Double) throws(Failure) {
        guard isReading else { return append(value.bitPattern) }
        value = Double(bitPattern: try take())
    }

    package mutating func pass(_ value: inout Bool) throws(Failure) {
        guard isReading else { return append(UInt8(value ? 1 : 0)) }
        let byte = try take(UInt8.self)
        guard byte <= 1 else { throw Failure(description: "\(byte) is no truth value") }
        value = byte == 1
    }

    package mutating func pass(_ value: inout String) throws(Failure) {
        guard isReading else {
            append(UInt32(value.utf8.count))
            return bytes.append(contentsOf: value.utf8)
        }
        let count = try count(bytesEach: 1)
        value = String(decoding: bytes[next..<next + count], as: UTF8.self)
        next += count
    }

    package mutating func pass(_ values: inout [UInt8]) throws(Failure) {
        guard isReading else {
            append(UInt32(values.count))
            return bytes.append(contentsOf: values)
        }
        let count = try count(bytesEach: 1)
        values = Array(bytes[next..<next + count])
        next += count
    }

    package mutating func pass(_ values: inout [Int32]) throws(Failure) {
        guard isReading else {
            append(UInt32(values.count))
            return unsafe values.withUnsafeBytes { unsafe bytes.append(contentsOf: $0) }
        }
        values = try words()
    }

    package mutating func pass(_ values: inout [Float]) throws(Failure) {
        guard isReading else {
            append(UInt32(values.count))
            return unsafe values.withUnsafeBytes { unsafe bytes.append(contentsOf: $0) }
        }
        values = try words().map { Float(bitPattern: UInt32(bitPattern: $0)) }
    }

    package mutating func pass<Value: WireCodable>(_ value: inout Value) throws(Failure) { try value.pass(&self) }

    package mutating func pass<Value: WireCodable>(_ value: inout Value?) throws(Failure) {
        var isThere = value != nil
        try pass(&isThere)
        guard isThere else {
            value = nil
            return
        }
        var some = value ?? .empty
        try some.pass(&self)
        value = some
    }

    package mutating func pass<Value: WireCodable>(_ values: inout [Value]) throws(Failure) {
        guard isReading else {
            append(UInt32(values.count))
            for index in values.indices { try values[index].pass(&self) }
            return
        }
        // Every value takes at least one byte, so the count is bounded by the remaining bytes.
        let count = try count(bytesEach: 1)
        values = []
        for _ in 0..<count {
            var value = Value.empty
            try value.pass(&self)
            values.append(value)
        }
    }

    /// Codes an enumeration case by its raw value.
    package mutating func pass<Value: RawRepresentable<String>>(_ value: inout Value) throws(Failure) {
        var name = value.rawValue
        try pass(&name)
        guard let known = Value(rawValue: name) else { throw Failure(description: "'\(name)' is no \(Value.self)") }
        value = known
    }

    // MARK: - Bytes

    private mutating func append(_ value: some FixedWidthInteger) {
        unsafe withUnsafeBytes(of: value.littleEndian) { unsafe bytes.append(contentsOf: $0) }
    }

    private mutating func take<Value: FixedWidthInteger>(_: Value.Type = Value.self) throws(Failure) -> Value {
        let size = MemoryLayout<Value>.size
        guard bytes.count - next >= size else { throw Failure(description: "the bytes end in the middle of a value") }
        defer { next += size }
        return bytes[next..<next + size].reversed().reduce(0) { $0 << 8 | Value($1) }
    }

    private mutating func count(bytesEach size: Int) throws(Failure) -> Int {
        let count = Int(try take(UInt32.self))
        guard count <= (bytes.count - next) / size else {
            throw Failure(description: "\(count) values are announced in \(bytes.count - next) bytes")
        }
        return count
    }

    private mutating func words() throws(Failure) -> [Int32] {
        let count = try count(bytesEach: 4)
        defer { next += 4 * count }
        return unsafe bytes[next..<next + 4 * count].withUnsafeBytes { source in
            (0..<count).map { unsafe source.loadUnaligned(fromByteOffset: 4 * $0, as: Int32.self) }
        }
    }
}

/// A value of this type can be sent to another process.
package protocol WireCodable {
    /// A value whose fields are overwritten by reading.
    static var empty: Self { get }
    /// Reads or writes every field, always in the same order.
    mutating func pass(_ wire: inout Wire) throws(Wire.Failure)
}

extension Int32: WireCodable {
    package static var empty: Int32 { 0 }
    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) { try wire.pass(&self) }
}

extension UInt64: WireCodable {
    package static var empty: UInt64 { 0 }
    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) { try wire.pass(&self) }
}

extension Int: WireCodable {
    package static var empty: Int { 0 }
    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) { try wire.pass(&self) }
}

extension Float: WireCodable {
    package static var empty: Float { 0 }
    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) { try wire.pass(&self) }
}

extension String: WireCodable {
    package static var empty: String { "" }
    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) { try wire.pass(&self) }
}
