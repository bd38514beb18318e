/// One tensor of a checkpoint, where it lies in its file. Costs no memory for its values; keeps the file open.
package struct StoredTensor: Sendable {
    package let name: String
    package let type: StoredType
    /// Extents from the slowest to the fastest, as stored: row-major. Empty for a single number.
    package let shape: [Int]
    /// The file that holds it.
    package let file: SafeTensorsFile
    /// Where the values lie in the file.
    package let range: Range<Int>

    /// The values, little-endian, aligned for their type, `byteCount` long.
    ///
    /// Points into read-only memory that is valid as long as `file` is referenced; keep this value or its file alive
    /// while the pointer is in use. Writing through it ends the process.
    package var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(rebasing: file.mapping.bytes[range]) }

    package var byteCount: Int { range.count }
    /// The product of the extents.
    package var elementCount: Int { range.count / type.bytes }

    /// An error about this tensor.
    package func refusal(_ problem: String, advice: String) -> CheckpointError {
        CheckpointError(file: file.path, subject: .tensor(name), problem: problem, advice: advice)
    }
}

extension StoredTensor {
    /// The place of the first NaN or infinity, counted in elements, or nil if there is none.
    ///
    /// Reads every value, so it is for verification and not for loading. Integers are always finite.
    package func firstNonFiniteIndex() -> Int? {
        switch type {
        case .f64: first(UInt64.self, withAllOf: 0x7FF0_0000_0000_0000)
        case .f32: first(UInt32.self, withAllOf: 0x7F80_0000)
        case .f16: first(UInt16.self, withAllOf: 0x7C00)
        case .bf16: first(UInt16.self, withAllOf: 0x7F80)
        case .f8e5m2: first(UInt8.self, withAllOf: 0x7C)
        case .f8e4m3: first(UInt8.self, withAllOf: 0x7F)
        case .f8e8m0: first(UInt8.self, withAllOf: 0xFF)
        case .i64, .i32, .i16, .i8, .u64, .u32, .u16, .u8, .bool: nil
        }
    }

    /// In every floating-point format the values that are not finite are those with certain bits all set.
    private func first<Bits: FixedWidthInteger>(_: Bits.Type, withAllOf mask: Bits) -> Int? {
        firstIndex(Bits.self) { $0 & mask == mask }?.index
    }

    /// The first value that fails the test, and its place; the tensor must be F32.
    func firstIndex(failing test: (Float) -> Bool) -> (index: Int, value: Float)? {
        precondition(type == .f32, "only F32 is read as Float")
        return firstIndex(UInt32.self) { !test(Float(bitPattern: $0)) }.map { ($0.index, Float(bitPattern: $0.bits)) }
    }

    private func firstIndex<Bits: FixedWidthInteger>(
        _: Bits.Type, where found: (Bits) -> Bool
    ) -> (index: Int, bits: Bits)? {
        precondition(MemoryLayout<Bits>.size == type.bytes, "the bits must be those of an element")
        let bytes = unsafe bytes
        defer { withExtendedLifetime(file) {} }
        for index in 0..<elementCount {
            let stored = unsafe bytes.load(fromByteOffset: index * MemoryLayout<Bits>.size, as: Bits.self)
            let bits = Bits(littleEndian: stored)
            if found(bits) { return (index, bits) }
        }
        return nil
    }
}
