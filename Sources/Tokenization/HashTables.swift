/// A random number mixed into every hash of this process, so that no text or file can be made whose entries collide.
private let hashSeed = UInt64.random(in: .min ... .max) | 1

/// Multiplies to 128 bits and folds the halves: one step that spreads every input bit.
@inline(__always)
private func fold(_ a: UInt64, _ b: UInt64) -> UInt64 {
    let product = a.multipliedFullWidth(by: b)
    return product.high ^ product.low
}

/// Returns the smallest table size, a power of two, at which `count` entries fill at most half.
private func tableSize(for count: Int) -> Int {
    var size = 16
    while size < count * 2 { size *= 2 }
    return size
}

/// Maps pairs of small numbers to 64-bit values. It uses open addressing, because every pair of symbols is looked up.
struct PairTable: Sendable {
    private var keys: [UInt64]
    private var values: [UInt64]
    private(set) var count = 0
    private static let empty = UInt64.max

    init(capacity: Int = 0) {
        let size = tableSize(for: capacity)
        keys = Array(repeating: Self.empty, count: size)
        values = Array(repeating: 0, count: size)
    }

    /// Returns the value of a pair. Both numbers must be at least 0.
    subscript(first: Int32, second: Int32) -> UInt64? {
        get {
            let slot = slot(of: Self.key(first, second))
            return keys[slot] == Self.empty ? nil : values[slot]
        }
    }

    /// Adds an entry, or replaces the value of the existing one.
    mutating func set(_ first: Int32, _ second: Int32, to value: UInt64) {
        if count * 2 >= keys.count { grow() }
        let key = Self.key(first, second)
        let slot = slot(of: key)
        if keys[slot] == Self.empty { count += 1 }
        keys[slot] = key
        values[slot] = value
    }

    private static func key(_ first: Int32, _ second: Int32) -> UInt64 {
        UInt64(UInt32(bitPattern: first)) << 32 | UInt64(UInt32(bitPattern: second))
    }

    /// Returns the slot of `key`, or the slot where it would be added.
    @inline(__always)
    private func slot(of key: UInt64) -> Int {
        let mask = keys.count - 1
        var slot = Int(truncatingIfNeeded: fold(key ^ hashSeed, 0x9E37_79B9_7F4A_7C15)) & mask
        while keys[slot] != Self.empty, keys[slot] != key { slot = (slot + 1) & mask }
        return slot
    }

    private mutating func grow() {
        let (oldKeys, oldValues) = (keys, values)
        keys = Array(repeating: Self.empty, count: oldKeys.count * 2)
        values = Array(repeating: 0, count: oldKeys.count * 2)
        for index in oldKeys.indices where oldKeys[index] != Self.empty {
            let slot = slot(of: oldKeys[index])
            keys[slot] = oldKeys[index]
            values[slot] = oldValues[index]
        }
    }
}

/// A set of byte strings, numbered in the order of adding. A string is found as a range of a buffer, without a copy.
struct ByteStringTable: Sendable {
    /// All strings, one after another.
    private var arena: [UInt8] = []
    /// String `i` is `arena[ends[i]..<ends[i + 1]]`.
    private var ends: [Int] = [0]
    /// The index of a string plus one; 0 means free.
    private var slots: [Int32]

    var count: Int { ends.count - 1 }

    init(capacity: Int = 0) {
        slots = Array(repeating: 0, count: tableSize(for: capacity))
    }

    subscript(index: Int) -> ArraySlice<UInt8> { arena[ends[index]..<ends[index + 1]] }

    /// Returns the index of `buffer[range]`, if it was added.
    func index(of buffer: [UInt8], _ range: Range<Int>) -> Int? {
        let found = slots[slot(of: buffer, range)]
        return found == 0 ? nil : Int(found) - 1
    }

    /// Adds `buffer[range]` unless it was added before.
    ///
    /// - Returns: its index, and whether it is new.
    mutating func insert(_ buffer: [UInt8], _ range: Range<Int>) -> (index: Int, isNew: Bool) {
        if count * 2 >= slots.count { grow() }
        let slot = slot(of: buffer, range)
        if slots[slot] != 0 { return (Int(slots[slot]) - 1, false) }
        arena.append(contentsOf: buffer[range])
        ends.append(arena.count)
        slots[slot] = Int32(count)
        return (count - 1, true)
    }

    private func slot(of buffer: [UInt8], _ range: Range<Int>) -> Int {
        let mask = slots.count - 1
        var slot = Int(truncatingIfNeeded: Self.hash(buffer, range)) & mask
        while slots[slot] != 0, !holds(Int(slots[slot]) - 1, buffer, range) { slot = (slot + 1) & mask }
        return slot
    }

    @inline(__always)
    private func holds(_ index: Int, _ buffer: [UInt8], _ range: Range<Int>) -> Bool {
        let start = ends[index]
        guard ends[index + 1] - start == range.count else { return false }
        for offset in 0..<range.count where arena[start + offset] != buffer[range.lowerBound + offset] { return false }
        return true
    }

    private static func hash(_ buffer: [UInt8], _ range: Range<Int>) -> UInt64 {
        var hash = hashSeed ^ UInt64(range.count)
        var at = range.lowerBound
        while at < range.upperBound {
            var word: UInt64 = 0
            let stop = min(at + 8, range.upperBound)
            while at < stop {
                word = word << 8 | UInt64(buffer[at])
                at += 1
            }
            hash = fold(hash ^ word, 0x9E37_79B9_7F4A_7C15)
        }
        return fold(hash, hashSeed)
    }

    private mutating func grow() {
        slots = Array(repeating: 0, count: slots.count * 2)
        for index in 0..<count { slots[slot(of: arena, ends[index]..<ends[index + 1])] = Int32(index + 1) }
    }
}
