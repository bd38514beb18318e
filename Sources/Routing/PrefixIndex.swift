/// An approximate index of the prompts that workers have computed: which worker has seen which block of text.
///
/// It is bounded: the block that was not used for longest, by the rule of the clock, makes room for a new one. An entry
/// may be wrong, because a worker has evicted the prompt. That costs time, and no answer.
package struct PrefixIndex: Sendable {
    /// The maximum number of workers, each of which has a bit in an entry.
    package static let maxSlots = 64
    package static let usualCapacity = 1 << 20

    private struct Entry {
        var block: UInt64
        /// A bit for each slot whose worker has the block.
        var slots: UInt64
        /// True if the block was used again since the hand of the clock was here. A new block was not: texts that come
        /// once do not displace those that come often.
        var isRecent = false
    }

    /// The maximum number of blocks.
    package let capacity: Int
    private var entries: [Entry] = []
    private var places: [UInt64: Int] = [:]
    private var hand = 0

    package init(capacity: Int = PrefixIndex.usualCapacity) {
        precondition(capacity > 0, "an index has room for one block at least")
        self.capacity = capacity
    }

    package var count: Int { entries.count }

    /// Returns for each slot how many bytes at the beginning of a text its worker has seen.
    package mutating func matchedBytes(_ text: RoutedText) -> [Int] {
        var matched = Array(repeating: 0, count: Self.maxSlots)
        var slots = UInt64.max
        for (index, block) in text.blocks.enumerated() {
            guard let place = places[block] else { break }
            slots &= entries[place].slots
            guard slots != 0 else { break }
            entries[place].isRecent = true
            var rest = slots
            while rest != 0 {
                matched[rest.trailingZeroBitCount] = (index + 1) * RoutedText.blockBytes
                rest &= rest - 1
            }
        }
        return matched
    }

    /// Records that a worker gets a text.
    package mutating func insert(_ text: RoutedText, slot: Int) {
        precondition((0..<Self.maxSlots).contains(slot), "there is no slot \(slot)")
        let bit = UInt64(1) << UInt64(slot)
        for block in text.blocks {
            if let place = places[block] {
                entries[place].slots |= bit
                entries[place].isRecent = true
            } else {
                add(Entry(block: block, slots: bit))
            }
        }
    }

    private mutating func add(_ entry: Entry) {
        if entries.count < capacity {
            places[entry.block] = entries.count
            entries.append(entry)
            return
        }
        while entries[hand].isRecent {
            entries[hand].isRecent = false
            hand = (hand + 1) % capacity
        }
        places[entries[hand].block] = nil
        places[entry.block] = hand
        entries[hand] = entry
        hand = (hand + 1) % capacity
    }

    /// Forgets what a worker has seen, because it has left, or has started again with an empty cache.
    package mutating func forget(slot: Int) {
        let others = ~(UInt64(1) << UInt64(slot))
        for place in entries.indices {
            entries[place].slots &= others
            if entries[place].slots == 0 { entries[place].isRecent = false }
        }
    }
}
