/// Converts ranges of scalars to ranges of their bytes.
enum UTF8Ranges {
    /// Returns sequences of byte ranges that together match exactly the UTF-8 of the scalars of `range`, which contains
    /// no surrogate.
    static func sequences(_ range: ClosedRange<UInt32>) -> [[ClosedRange<UInt8>]] {
        var result: [[ClosedRange<UInt8>]] = []
        for limits in [0...0x7F, 0x80...0x7FF, 0x800...0xFFFF, 0x10000...0x10FFFF] as [ClosedRange<UInt32>]
        where range.overlaps(limits) {
            split(range.clamped(to: limits), into: &result)
        }
        return result
    }

    /// Cuts a range of scalars of equal length until all bytes after the first that differs span everything.
    private static func split(_ range: ClosedRange<UInt32>, into result: inout [[ClosedRange<UInt8>]]) {
        let (low, high) = (range.lowerBound, range.upperBound)
        for bits in stride(from: UInt32(6), through: 18, by: 6) {
            let mask = (UInt32(1) << bits) - 1
            guard low & ~mask != high & ~mask else { break }
            if low & mask != 0 {
                split(low...(low | mask), into: &result)
                return split((low | mask) + 1...high, into: &result)
            }
            if high & mask != mask {
                split(low...(high & ~mask) - 1, into: &result)
                return split(high & ~mask...high, into: &result)
            }
        }
        result.append(zip(bytes(low), bytes(high)).map { $0...$1 })
    }

    private static func bytes(_ value: UInt32) -> [UInt8] {
        Unicode.Scalar(value).map { Array(String($0).utf8) } ?? []
    }
}
