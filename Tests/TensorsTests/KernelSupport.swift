import CKernels
import Synchronization
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// A level's functions may be called from anywhere.
extension KernelLevel: @unchecked Sendable, CustomTestStringConvertible {
    var testDescription: String { name }
}

extension braid_dtype {
    static var all: [braid_dtype] { [BRAID_F32, BRAID_BF16, BRAID_FP8, BRAID_INT8, BRAID_FP4] }

    var bits: Int { self == BRAID_F32 ? 32 : self == BRAID_BF16 ? 16 : self == BRAID_FP4 ? 4 : 8 }
}

extension braid_scale_type {
    static var all: [braid_scale_type] { [BRAID_SCALE_F32, BRAID_SCALE_E8M0] }
}

extension braid_profile {
    static var all: [braid_profile] {
        [BRAID_PROFILE_F32, BRAID_PROFILE_BF16, BRAID_PROFILE_INT8_F32, BRAID_PROFILE_INT8]
    }
}

extension Dice {
    mutating func profile() -> braid_profile { braid_profile.all[int(0...3)] }
}

/// Returns a number's bytes as a type stores it, least significant byte first; BF16 is truncated, not rounded.
func storedBytes(_ value: Float, _ dtype: braid_dtype) -> [UInt8] {
    let bits = value.bitPattern
    let all = [0, 8, 16, 24].map { UInt8(truncatingIfNeeded: bits >> $0) }
    return dtype == BRAID_F32 ? all : Array(all[2...])
}

/// Returns the number that an E4M3 byte represents, by the definition of the format.
func e4m3(_ byte: UInt8) -> Float {
    let exponent = Int(byte >> 3 & 15)
    let mantissa = Float(byte & 7) / 8
    if byte & 0x7F == 0x7F { return .nan }
    return Float(
        sign: byte & 0x80 == 0 ? .plus : .minus, exponent: max(exponent, 1) - 7,
        significand: exponent == 0 ? mantissa : 1 + mantissa)
}

/// Returns the number that an E8M0 byte represents.
func e8m0(_ byte: UInt8) -> Float {
    byte == 0xFF ? .nan : Float(sign: .plus, exponent: Int(byte) - 127, significand: 1)
}

/// Returns the bytes of a scale. Where they are E8M0, it is a power of two, or not finite.
func storedScale(_ scale: Float, _ type: braid_scale_type) -> [UInt8] {
    guard type == BRAID_SCALE_E8M0 else { return storedBytes(scale, BRAID_F32) }
    return [scale.isFinite ? UInt8(scale.exponent + 127) : 0xFF]
}

/// Returns bytes, and others behind them up to a multiple of four.
func toWords(_ bytes: [UInt8], filling: UInt8) -> [UInt8] {
    bytes + [UInt8](repeating: filling, count: (4 - bytes.count % 4) % 4)
}

/// Returns the number that an E2M1 code of four bits represents.
func e2m1(_ code: UInt8) -> Float {
    let magnitude: Float = [0, 0.5, 1, 1.5, 2, 3, 4, 6][Int(code & 7)]
    return code & 8 == 0 ? magnitude : -magnitude
}

/// Holds a stored matrix that is a part of a larger one, and its elements widened. Memory after its last element is
/// protected, and memory between its rows must not be read. FP8 and INT8 matrices have a scale per row, or one per block
/// of any size that is a power of two; a third have blocks of 128 × 128. Two thirds of FP4 matrices have a scale per
/// 1 × 32 block, and the others blocks of any size.
final class StoredMatrix {
    let rows: Int, columns: Int, stride: Int
    let dtype: braid_dtype
    private let row: Int, column: Int, scaleStride: Int
    private let shifts: (row: Int, column: Int)
    private let bytes: Guarded<UInt8>
    private let scales: Guarded<UInt8>
    /// [rows, columns], each rounded to F32 once.
    let values: [Float]

    /// - Parameter released: true for scales as in checkpoints since V3.1, which are powers of two for blocks of 128 × 128,
    ///   and a first column where 64 of a block's begin.
    init(
        _ dice: inout Dice, rows: Int, columns: Int, dtype: braid_dtype, wild: Bool = false, released: Bool = false
    ) {
        self.rows = rows
        self.columns = columns
        self.dtype = dtype
        // Rows of FP4 begin with whole bytes, the first of which a part may share with the element before it.
        stride = dtype == BRAID_FP4 ? (columns + 2 + dice.int(0...5)) / 2 * 2 : columns + dice.int(0...5)
        row = dice.flag() ? 0 : dice.int(0...200)
        column = released ? 64 * dice.int(0...2) : dice.flag() ? 0 : dice.int(0...200)
        let usual = dtype == BRAID_FP4 ? [(0, 5), (0, 5)] : [(7, 7), (0, Int(BRAID_WHOLE_SHIFT))]
        let shifts = released ? usual[0] : (usual + [(dice.int(0...8), dice.int(0...8))]).randomElement(using: &dice)!
        let scaleStride = columns == 0 ? 1 : (column + columns - 1) >> shifts.1 + 1
        (self.shifts, self.scaleStride) = (shifts, scaleStride)
        let scaleCount = rows == 0 ? 0 : ((row + rows - 1) >> shifts.0 + 1) * scaleStride
        let exponents = (0..<scaleCount).map { _ in UInt8(wild ? dice.int(0...255) : dice.int(120...134)) }
        let scale = exponents.map { exponent -> Float in
            if released, dtype != BRAID_FP4 { return dice.powerOfTwo(wild: wild) }
            if dtype != BRAID_FP4 { return dice.float() }
            return e8m0(exponent)
        }
        let odd = dtype == BRAID_FP4 ? column & 1 : 0
        var stored = [UInt8](
            repeating: 0xFF, count: rows == 0 ? 0 : (((rows - 1) * stride + odd + columns) * dtype.bits + 7) / 8)
        var widened: [Float] = []
        for r in 0..<rows {
            for c in 0..<columns {
                let at = (r * stride + odd + c) * dtype.bits / 8
                switch dtype {
                case BRAID_FP4:
                    let code = UInt8.random(in: 0...15, using: &dice)
                    let isHigh = (odd + c) % 2 == 1
                    stored[at] = isHigh ? stored[at] & 0x0F | code << 4 : stored[at] & 0xF0 | code
                    widened.append(e2m1(code) * scale[(row + r) >> shifts.0 * scaleStride + (column + c) >> shifts.1])
                case BRAID_FP8:
                    var byte = UInt8.random(in: 0...255, using: &dice)
                    if !wild && byte & 0x7F == 0x7F { byte = 0x01 }
                    stored[at] = byte
                    widened.append(e4m3(byte) * scale[(row + r) >> shifts.0 * scaleStride + (column + c) >> shifts.1])
                case BRAID_INT8:
                    let value = Int8.random(in: -128...127, using: &dice)
                    stored[at] = UInt8(bitPattern: value)
                    widened.append(
                        Float(value) * scale[(row + r) >> shifts.0 * scaleStride + (column + c) >> shifts.1])
                default:
                    let value = wild ? dice.wildFloat() : dice.float()
                    let encoded = storedBytes(value, dtype)
                    stored.replaceSubrange(at..<at + encoded.count, with: encoded)
                    widened.append(dtype == BRAID_F32 ? value : Float(bitPattern: value.bitPattern & 0xFFFF_0000))
                }
            }
        }
        bytes = Guarded(stored)
        scales = Guarded(dtype == BRAID_FP4 ? exponents : scale.flatMap { storedBytes($0, BRAID_F32) })
        values = widened
    }

    /// Creates an F32 matrix of these values.
    init(twinOf other: StoredMatrix) {
        rows = other.rows
        columns = other.columns
        stride = columns
        dtype = BRAID_F32
        (row, column, scaleStride, shifts) = (0, 0, 0, (0, 0))
        values = other.values
        bytes = Guarded(values.flatMap { storedBytes($0, BRAID_F32) })
        scales = Guarded([])
    }

    /// Is valid while this object lives.
    @unsafe var weight: braid_weight {
        let scaled = dtype != BRAID_F32 && dtype != BRAID_BF16
        return unsafe braid_weight(
            data: bytes.pointer, dtype: dtype, stride: Int64(stride), scale: scaled ? scales.pointer : nil,
            scale_stride: Int64(scaleStride), row: Int64(row), column: Int64(column),
            row_shift: Int32(shifts.row), column_shift: Int32(shifts.column), rounding: nil)
    }
}

/// Says how a lane stores its entries.
struct LaneShape {
    let width: Int
    let dtype: braid_dtype
    /// Is the number of columns that share a scale.
    let group: Int
    let scaleType: braid_scale_type

    init(_ width: Int, _ dtype: braid_dtype, group: Int? = nil, scaleType: braid_scale_type = BRAID_SCALE_F32) {
        self.width = width
        self.dtype = dtype
        self.group = group ?? max(width, 1)
        self.scaleType = scaleType
    }

    /// Returns any type that a cache may have, with any groups for FP8 and FP4 and any scales for FP8.
    ///
    /// - Parameter index: whether the lane has index keys, which may also be FP4.
    init(_ dice: inout Dice, width: Int, index: Bool = false) {
        let types = [BRAID_F32, BRAID_BF16, BRAID_FP8] + (index ? [BRAID_FP4, BRAID_FP4] : [])
        let dtype = types.randomElement(using: &dice)!
        let usual = dtype == BRAID_FP4 && dice.flag()
        self.init(
            width, dtype, group: usual ? 32 : dice.int(0...2) == 0 ? nil : dice.int(1...9) * 16,
            scaleType: dtype == BRAID_FP4 ? BRAID_SCALE_E8M0 : braid_scale_type.all.randomElement(using: &dice)!)
    }

    var entryBytes: Int { Int(braid_entry_bytes(dtype, Int64(width), Int64(group), scaleType)) }

    /// Returns an entry's bytes and the numbers they represent. Padding bytes are not zero.
    func entry(_ dice: inout Dice, wild: Bool) -> (bytes: [UInt8], values: [Float]) {
        guard dtype == BRAID_FP8 || dtype == BRAID_FP4 else {
            let bytes = (0..<width).map { _ in storedBytes(dice.float(), dtype) }
            let values = bytes.map { bytes in
                let bits = bytes.reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
                return Float(bitPattern: dtype == BRAID_F32 ? bits : bits << 16)
            }
            return (Array(bytes.joined()), values)
        }
        if dtype == BRAID_FP4 { return fp4Entry(&dice, wild: wild) }
        let codes = (0..<width).map { _ in
            let code = UInt8.random(in: 0...255, using: &dice)
            return code & 0x7F == 0x7F && !wild ? 0x01 : code
        }
        // The largest magnitude of E4M3 is 448.
        let scales = (0..<(width + group - 1) / group).map { _ -> Float in
            if scaleType == BRAID_SCALE_E8M0 { return e8m0(UInt8(wild ? dice.int(0...255) : dice.int(117...119))) }
            return wild ? dice.wildFloat() : Float.random(in: 1e-3...9e-3, using: &dice)
        }
        let values = codes.enumerated().map { e4m3($1) * scales[$0 / group] }
        let stored = scales.flatMap { storedScale($0, scaleType) }
        return (toWords(codes, filling: 0xFF) + toWords(stored, filling: 0xFF), values)
    }

    /// Returns an FP4 entry. Padding is not zero, nor is the half of a byte behind an odd number of values.
    private func fp4Entry(_ dice: inout Dice, wild: Bool) -> (bytes: [UInt8], values: [Float]) {
        let codes = (0..<(width + 1) / 2).map { _ in UInt8.random(in: 0...255, using: &dice) }
        let scales = (0..<(width + group - 1) / group).map { _ in
            UInt8(wild && dice.flag() ? dice.int(0...255) : dice.int(117...125))
        }
        let values = (0..<width).map { i in e2m1(codes[i / 2] >> (i & 1 == 0 ? 0 : 4) & 0xF) * e8m0(scales[i / group]) }
        return (toWords(codes, filling: 0xFF) + toWords(scales, filling: 0xFF), values)
    }
}

/// Holds lanes of a cache with the same pages in shuffled order. Elements that no position of `stored` needs are NaN.
final class PagedLanes {
    let pageShift: Int
    let pages: Guarded<Int32>
    private let shapes: [LaneShape]
    private let lanes: [Guarded<UInt8>]
    /// Holds, for each lane, [positions, width] widened; NaN where nothing is stored.
    let values: [[Float]]

    /// - Parameter wild: whether FP8 and FP4 entries may hold codes and scales that are not numbers.
    init(_ dice: inout Dice, lanes shapes: [LaneShape], positions: Int, stored: Set<Int>, wild: Bool = false) {
        self.shapes = shapes
        pageShift = dice.int(0...6)
        let count = ((positions - 1) >> pageShift) + 1
        let order = (0..<count + 2).shuffled(using: &dice).prefix(count).map { Int32($0) }
        pages = Guarded(order)
        var bytes: [Guarded<UInt8>] = []
        var values: [[Float]] = []
        for shape in shapes {
            var lane = [UInt8](repeating: 0xFF, count: ((count + 2) << pageShift) * shape.entryBytes)
            var widened = [Float](repeating: .nan, count: positions * shape.width)
            for p in stored {
                let at = Self.entry(p, order, pageShift) * shape.entryBytes
                let entry = shape.entry(&dice, wild: wild)
                lane.replaceSubrange(at..<at + shape.entryBytes, with: entry.bytes)
                widened.replaceSubrange(p * shape.width..<(p + 1) * shape.width, with: entry.values)
            }
            bytes.append(Guarded(lane))
            values.append(widened)
        }
        lanes = bytes
        self.values = values
    }

    /// Returns F32 lanes of the same numbers at the same places.
    init(twinOf other: PagedLanes) {
        (pageShift, pages, values) = (other.pageShift, other.pages, other.values)
        shapes = other.shapes.map { LaneShape($0.width, BRAID_F32) }
        let order = other.pages.values
        let entries = (Int(order.max() ?? 0) + 1) << pageShift
        lanes = zip(shapes, other.values).map { shape, values in
            var lane = [UInt8](repeating: 0xFF, count: entries * shape.entryBytes)
            for p in 0..<(shape.width == 0 ? 0 : values.count / shape.width) {
                let at = Self.entry(p, order, other.pageShift) * shape.entryBytes
                let stored = values[p * shape.width..<(p + 1) * shape.width].flatMap { storedBytes($0, BRAID_F32) }
                lane.replaceSubrange(at..<at + shape.entryBytes, with: stored)
            }
            return Guarded(lane)
        }
    }

    /// Returns a lane of one entry with these bytes.
    init(entry: [UInt8], of shape: LaneShape) {
        (pageShift, pages, shapes, values) = (0, Guarded([0]), [shape], [])
        lanes = [Guarded(entry)]
    }

    private static func entry(_ position: Int, _ order: [Int32], _ shift: Int) -> Int {
        Int(order[position >> shift]) << shift + position & (1 << shift - 1)
    }

    /// Is valid while this object lives.
    @unsafe func lane(_ i: Int) -> braid_lane {
        unsafe braid_lane(
            data: lanes[i].pointer, dtype: shapes[i].dtype, width: Int64(shapes[i].width),
            group: Int64(shapes[i].group), scale_type: shapes[i].scaleType)
    }
}

/// Allocates scratch that begins on a cache line and ends less than a line before protected memory. It is full of NaN.
func scratch(_ floats: Int) -> Guarded<Float> {
    let count = (floats + 15) / 16 * 16
    return Guarded(count: count, copyOf: FileOfNaN.holding(count))
}

/// A file that contains only NaN. Kernels ask for megabytes of scratch and touch little of it, and to fill it for each
/// call would take most of these tests' time.
private enum FileOfNaN {
    private static let descriptor = unsafe fileno(tmpfile())
    private static let floats = Mutex(0)

    /// Returns the file's descriptor; the file holds at least this many numbers.
    static func holding(_ count: Int) -> CInt {
        floats.withLock { floats in
            let block = [Float](repeating: .nan, count: 1 << 18)
            while floats < count {
                let written = unsafe block.withUnsafeBytes { unsafe write(descriptor, $0.baseAddress, $0.count) }
                precondition(written == 4 * block.count, "cannot write a file for scratch")
                floats += block.count
            }
        }
        return descriptor
    }
}
