import CKernels
import Foundation

/// These functions reach the processor's limits, for benchmarks to compare with. Each returns how much it did.
extension Kernels {
    /// Runs `turns` rounds of this level's multiply-adds in registers.
    ///
    /// - Returns: the floating-point operations done; a multiplication and an addition count as two.
    package func multiplyAdds(turns: Int) -> Int { unsafe Int(table.multiply_adds(Int64(turns))) }

    /// Runs `turns` rounds of products of BF16 tiles that are loaded each time.
    ///
    /// - Returns: the floating-point operations done; 0 where the level `amx` is missing.
    package static func tileDots(turns: Int) -> Int { Int(braid_tile_dots(Int64(turns))) }

    /// True if products of many rows of BF16 activations are dot products of BF16 pairs here.
    package var addsPairs: Bool {
        guard let pairs = unsafe braid_avx512_with_dots() else { return false }
        return unsafe strcmp(table.name, pairs.pointee.name) == 0
    }

    /// Runs `turns` rounds of dot products of BF16 pairs.
    ///
    /// - Returns: the operations done; 0 where the processor has no such instruction.
    package static func bf16Dots(turns: Int) -> Int { Int(braid_bf16_dots(Int64(turns))) }

    /// Runs `turns` rounds of dot products of bytes, as products of the profile `int8` have.
    ///
    /// - Returns: the operations done; 0 where the processor has no such instruction.
    package static func int8Dots(turns: Int) -> Int { Int(braid_int8_dots(Int64(turns))) }
}

/// Holds memory larger than the caches, filled with numbers that are ordinary in every element type, and provides
/// weights and cache lanes in it. Each request takes the memory after the last one, so a benchmark that goes round
/// reads what is no longer in a cache, as a step reads the weights of one layer after the other.
package final class ColdMemory: @unchecked Sendable {
    package let bytes: Int
    private let memory: Buffer
    private let scales: Vector
    private var next = 0

    /// Fills the memory.
    ///
    /// - Parameter bytes: the size of the memory; no request may be larger.
    package init(bytes: Int) {
        self.bytes = bytes
        memory = Buffer(bytes: bytes)
        scales = Vector(Array(repeating: 0x1p-10, count: 1 << 18))
        var state: UInt64 = 0x9E37_79B9_7F4A_7C15
        let words = unsafe memory.pointer.bindMemory(to: UInt64.self, capacity: bytes / 8)
        for word in 0..<bytes / 8 {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            // Each byte ±(0x38 ... 0x3F): 1 to 1.9 in E4M3, about 0.003 in BF16 and F32.
            unsafe words[word] = state & 0x8787_8787_8787_8787 | 0x3838_3838_3838_3838
        }
    }

    /// Reads the next `bytes` bytes.
    package func read(_ bytes: Int, _ kernels: Kernels) {
        unsafe kernels.table.read_bytes(take(bytes), Int64(bytes))
    }

    package func weight(_ dtype: DType, _ rows: Int, _ columns: Int) -> Weight {
        let scaling = dtype.scalings[0]
        precondition(
            rows <= scales.count && rows * columns / (128 * 64) <= scales.count, "\(rows) × \(columns) weights")
        let grid = scaling.grid(rows: rows, columns: columns) ?? (0, 0)
        // Scales of FP4 are a large part of its bytes.
        let scale = unsafe dtype == .fp4 ? take(grid.rows * grid.columns) : UnsafeMutableRawPointer(scales.view.base)
        return unsafe Weight(
            take(dtype.bytes(of: rows * columns)), dtype: dtype, rows: rows, columns: columns, scaling: scaling,
            scale: scaling == .none ? nil : scale)
    }

    package func lane(_ dtype: DType, width: Int, group: Int, scaleType: ScaleType, entries: Int) -> CacheLane {
        let bytes = entries * CacheLane.entryBytes(dtype, width: width, group: group, scaleType: scaleType)
        return unsafe CacheLane(
            take(bytes), dtype: dtype, width: width, group: group, scaleType: scaleType, entries: entries)
    }

    private func take(_ bytes: Int) -> UnsafeMutableRawPointer {
        let whole = (bytes + 4095) & ~4095
        precondition(whole <= self.bytes, "\(bytes) bytes of a memory of \(self.bytes)")
        if next + whole > self.bytes { next = 0 }
        defer { next += whole }
        return unsafe memory.pointer + next
    }
}
