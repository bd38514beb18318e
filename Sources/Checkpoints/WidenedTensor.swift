import Tensors

/// Owns the numbers of a stored tensor in F32, for types that no kernel reads.
///
/// Widening is exact, so results are those of a checkpoint that stores the same numbers in F32. It takes four bytes a
/// number beside the mapped file, in every process: as much as an F32 checkpoint, twice the file for F16 weights.
@safe final class WidenedTensor: @unchecked Sendable {
    let count: Int
    private let memory: Buffer

    /// Widens a tensor whose type `StoredType.isWidened` allows.
    ///
    /// - Throws: if the system refuses to reserve the memory.
    init(_ tensor: StoredTensor) throws(CheckpointError) {
        count = tensor.elementCount
        do throws(MemoryError) {
            memory = try Buffer(reserving: count * MemoryLayout<Float>.stride)
        } catch {
            throw tensor.refusal(
                "is \(tensor.type.rawValue), which is widened to F32 when it is loaded: \(error)",
                advice: "convert the model to BF16, which is used as stored, or use a machine with more memory")
        }
        unsafe tensor.widen(into: memory.pointer.bindMemory(to: Float.self, capacity: count))
    }

    /// Gives the numbers, which are valid as long as this object lives and must not be written to.
    @unsafe var numbers: UnsafeBufferPointer<Float> {
        unsafe UnsafeBufferPointer(start: memory.pointer.assumingMemoryBound(to: Float.self), count: count)
    }
}

extension StoredType {
    /// True if `StoredTensor.widen` reads the type.
    var isWidened: Bool {
        switch self {
        case .f32, .bf16, .f16, .f8e8m0: true
        default: false
        }
    }
}

extension StoredTensor {
    /// Writes the numbers, widened exactly to F32, to `out`, which has space for `elementCount`. The type must be F32,
    /// BF16, F16 or F8_E8M0.
    @unsafe func widen(into out: UnsafeMutablePointer<Float>) {
        guard elementCount > 0 else { return }
        let start = unsafe bytes.baseAddress!
        defer { withExtendedLifetime(file) {} }
        /// Widens numbers of type `Bits`, which are aligned as safetensors requires.
        func each<Bits>(_ type: Bits.Type, _ widen: (Bits) -> Float) {
            let from = unsafe start.assumingMemoryBound(to: type)
            for index in 0..<elementCount { unsafe out[index] = widen(from[index]) }
        }
        switch type {
        case .f32: each(UInt32.self) { Float(bitPattern: UInt32(littleEndian: $0)) }
        case .bf16: each(UInt16.self) { Float(bitPattern: UInt32(UInt16(littleEndian: $0)) << 16) }
        case .f16: each(UInt16.self) { Float(binary16: UInt16(littleEndian: $0)) }
        case .f8e8m0: each(UInt8.self) { Float(e8m0: $0) }
        default: preconditionFailure("\(type.rawValue) is not widened")
        }
    }
}

extension Float {
    /// Widens an IEEE half-precision number exactly. Not every processor of a baseline has an instruction for it, so
    /// this is arithmetic that compilers turn into vector code: the product moves the exponent from a bias of 15 to one
    /// of 127, also for subnormal numbers.
    init(binary16 bits: UInt16) {
        let magnitude = UInt32(bits & 0x7FFF) << 13
        let finite = (Float(bitPattern: magnitude) * 0x1p112).bitPattern
        let isFinite = magnitude < 0x7C00 << 13
        self.init(bitPattern: (isFinite ? finite : magnitude | 0x7F80_0000) | UInt32(bits & 0x8000) << 16)
    }

    /// Widens an E8M0 number, 2^(byte − 127), exactly; 0xFF is NaN.
    init(e8m0 byte: UInt8) {
        switch byte {
        case 0: self = 0x1p-127
        case 0xFF: self = .nan
        default: self.init(bitPattern: UInt32(byte) << 23)
        }
    }
}
