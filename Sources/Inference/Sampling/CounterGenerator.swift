/// This random number generator has no state: the same seed and position give the same number, in any batch, on any
/// rank and after any preemption.
///
/// The generator is Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3"
/// (SC 2011): a keyed bijection of 128-bit counters that passes BigCrush.
package struct CounterGenerator: Sendable {
    package let seed: UInt64

    package init(seed: UInt64) { self.seed = seed }

    /// Returns a number in [0, 1), a multiple of 2⁻⁵³, for the token at `position`.
    package func uniform(at position: Int) -> Double {
        let counter = UInt64(position)
        let words = Self.block(
            counter: [UInt32(truncatingIfNeeded: counter), UInt32(truncatingIfNeeded: counter >> 32), 0, 0],
            key: [UInt32(truncatingIfNeeded: seed), UInt32(truncatingIfNeeded: seed >> 32)])
        let bits = UInt64(words[0]) << 32 | UInt64(words[1])
        return Double(bits >> 11) * 0x1p-53
    }

    /// Returns `counter` after ten rounds of Philox4x32 with `key`.
    package static func block(counter: SIMD4<UInt32>, key: SIMD2<UInt32>) -> SIMD4<UInt32> {
        var words = counter
        var key = key
        for _ in 0..<10 {
            let first = words[0].multipliedFullWidth(by: 0xD251_1F53)
            let second = words[2].multipliedFullWidth(by: 0xCD9E_8D57)
            words = [second.high ^ words[1] ^ key[0], second.low, first.high ^ words[3] ^ key[1], first.low]
            key &+= [0x9E37_79B9, 0xBB67_AE85]
        }
        return words
    }
}
