import CKernels
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Holds elements that end right before protected memory, so that a kernel that reads or writes past them crashes.
@safe final class Guarded<Element: BitwiseCopyable> {
    let count: Int
    private let mapping: UnsafeMutableRawPointer
    private let mappedBytes: Int
    private let base: UnsafeMutablePointer<Element>

    convenience init(_ values: [Element]) {
        self.init(count: values.count)
        for (i, value) in values.enumerated() { unsafe base[i] = value }
    }

    /// - Parameter file: the descriptor of a file whose first bytes the memory is a private copy of, page by page when
    ///   one is touched; the memory is zero without it.
    init(count: Int, copyOf file: CInt? = nil) {
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        let bytes = count * MemoryLayout<Element>.stride
        let whole = (bytes + page - 1) / page * page
        self.count = count
        mappedBytes = whole + page
        unsafe mapping = mmap(nil, mappedBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if let file, whole > 0 {
            let copy = unsafe mmap(mapping, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, file, 0)
            unsafe precondition(copy == mapping, "cannot map a file of \(whole) bytes")
        }
        let guarded = unsafe mprotect(mapping + whole, page, PROT_NONE)
        precondition(guarded == 0, "cannot protect the page behind a buffer")
        unsafe base = (mapping + whole - bytes).bindMemory(to: Element.self, capacity: count)
    }

    convenience init(repeating value: Element, count: Int) { self.init([Element](repeating: value, count: count)) }

    deinit { unsafe munmap(mapping, mappedBytes) }

    @unsafe var pointer: UnsafeMutablePointer<Element> { unsafe base }
    var values: [Element] { (0..<count).map { unsafe base[$0] } }
}

/// Pairs a level's table with its name.
@safe struct KernelLevel {
    let name: String
    let table: braid_kernels

    init?(_ level: braid_level) {
        unsafe self.init(braid_kernels_at(level))
    }

    private init?(_ found: UnsafePointer<braid_kernels>?) {
        guard let found = unsafe found else { return nil }
        unsafe table = found.pointee
        name = unsafe String(cString: table.name)
    }

    static var reference: KernelLevel { KernelLevel(BRAID_REFERENCE)! }
    /// The level AVX-512 as processors without VNNI have it.
    private static var withoutVNNI: KernelLevel? { unsafe KernelLevel(braid_avx512_without_vnni()) }
    /// The level AVX-512 as processors with a fast VDPBF16PS have it.
    private static var withDots: KernelLevel? { unsafe KernelLevel(braid_avx512_with_dots()) }
    static var fast: [KernelLevel] {
        [BRAID_NEON, BRAID_AVX2, BRAID_AVX512, BRAID_AMX].compactMap { KernelLevel($0) }
            + [withoutVNNI, withDots].compactMap(\.self)
    }
    static var all: [KernelLevel] { [reference] + fast }
}

/// Calls one operation of a table. The memory that its parameters point to must live until it returns.
func call<Parameters>(
    _ operation: ((UnsafePointer<Parameters>?) -> Void)?, _ parameters: Parameters, keeping owners: [AnyObject]
) {
    withExtendedLifetime(owners) {
        unsafe withUnsafePointer(to: parameters) { unsafe operation!($0) }
    }
}

/// Generates numbers that are the same in every run.
struct Dice: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    mutating func int(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &self) }
    mutating func flag() -> Bool { Bool.random(using: &self) }

    /// Returns a power of two, with either sign; a wild one may be the largest, subnormal, 0 or infinite.
    mutating func powerOfTwo(wild: Bool) -> Float {
        let special: [Float] = [0, .infinity, 0x1p118, 0x1p119, 0x1p120, 0x1p127, 0x1p-126, 0x1p-127, 0x1p-149]
        let magnitude =
            wild && flag()
            ? special.randomElement(using: &self)! : Float(sign: .plus, exponent: int(-9...9), significand: 1)
        return flag() ? -magnitude : magnitude
    }

    /// Returns a number that is about normal, with scale 1.
    mutating func float() -> Float {
        (0..<4).reduce(Float(0)) { sum, _ in sum + Float.random(in: -1...1, using: &self) }
    }

    /// Returns numbers of which one in eight is a difficult value, such as NaN or infinity.
    mutating func wildFloat() -> Float {
        let wild: [Float] = [
            .infinity, -.infinity, .nan, -.nan, 0, -0.0, .leastNonzeroMagnitude, -.leastNormalMagnitude / 2,
            .greatestFiniteMagnitude, 1e-20, -88,
            100,
        ]
        return int(0...7) == 0 ? wild[int(0...wild.count - 1)] : float() * exp2(Float(int(-8...8)))
    }

    /// Returns `rows` rows of `width` numbers, `stride` apart; the gaps, which must not be read, are NaN.
    mutating func rows(_ rows: Int, width: Int, stride: Int, wild: Bool = false) -> [Float] {
        guard rows > 0 else { return [] }
        return (0..<(rows - 1) * stride + width).map { i in
            i % stride < width ? (wild ? wildFloat() : float()) : .nan
        }
    }

    /// Returns a width that is often small and often no multiple of sixteen.
    mutating func width() -> Int { flag() ? int(1...40) : int(1...700) }
}

/// Returns where `a` and `b` first differ in their bits; any two NaNs count as equal.
func firstDifference(_ a: [Float], _ b: [Float]) -> Int? {
    precondition(a.count == b.count)
    return a.indices.first { a[$0].bitPattern != b[$0].bitPattern && !(a[$0].isNaN && b[$0].isNaN) }
}

/// Fills memory that a kernel must not write to.
let untouched: Float = -12345.5

/// Allocates `rows` rows of `width`, `stride` apart.
func output(_ rows: Int, width: Int, stride: Int) -> Guarded<Float> {
    Guarded(repeating: untouched, count: rows == 0 ? 0 : (rows - 1) * stride + width)
}

/// Returns true if the gaps between the rows are as `output` filled them.
func isUntouchedBetweenRows(_ values: [Float], width: Int, stride: Int) -> Bool {
    values.indices.allSatisfy { $0 % stride < width || values[$0] == untouched }
}

/// Is half a unit in the last place of 1: the relative error of one rounding.
let rounding = 0x1p-24
