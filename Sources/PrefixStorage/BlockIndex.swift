/// The blocks in a directory, with the order in which they were used.
package struct BlockIndex: Sendable {
    package private(set) var entries: [BlockID: Entry] = [:]
    /// The number of bytes that the files occupy together.
    package private(set) var bytes = 0

    package init() {}

    package struct Entry: Sendable, Equatable {
        /// The length of the file.
        package var fileBytes: Int
        /// The number of bytes that the file occupies.
        package var bytes: Int { BlockIndex.occupied(fileBytes) }
        /// When the block was last used, in nanoseconds since 1970.
        package var used: Int64
        /// The time of the last use that the file shows.
        package var shown: Int64
    }

    /// Files occupy whole blocks of a file system.
    package static func occupied(_ fileBytes: Int) -> Int { (fileBytes + 4095) & ~4095 }

    package func contains(_ id: BlockID) -> Bool { entries[id] != nil }

    package mutating func add(_ id: BlockID, fileBytes: Int, used: Int64) {
        remove(id)
        let entry = Entry(fileBytes: fileBytes, used: used, shown: used)
        entries[id] = entry
        bytes += entry.bytes
    }

    package mutating func remove(_ id: BlockID) {
        if let entry = entries.removeValue(forKey: id) { bytes -= entry.bytes }
    }

    /// Records that a prefix is used now. Its first block is the last one used, so that a prefix is evicted from its
    /// end.
    ///
    /// - Parameter chain: the blocks of the prefix, from the first on.
    /// - Returns: the times to show in the files, for blocks whose files show one that is older by `interval`.
    package mutating func use(_ chain: [BlockID], at now: Int64, interval: Int64) -> [(id: BlockID, time: Int64)] {
        var outdated: [(id: BlockID, time: Int64)] = []
        for (depth, id) in chain.enumerated() {
            guard var entry = entries[id] else { continue }
            entry.used = max(entry.used, now - Int64(depth) * 1000)
            if entry.used - entry.shown >= interval {
                entry.shown = entry.used
                outdated.append((id, entry.used))
            }
            entries[id] = entry
        }
        return outdated
    }

    /// Another server has used a block.
    package mutating func note(_ id: BlockID, used: Int64) {
        guard let entry = entries[id] else { return }
        entries[id]!.used = max(entry.used, used)
        entries[id]!.shown = max(entry.shown, used)
    }

    /// Returns the blocks in the order in which they are to be evicted.
    package var leastRecentlyUsed: [BlockID] {
        entries.sorted { one, other in
            one.value.used == other.value.used
                ? one.key.bytes.lexicographicallyPrecedes(other.key.bytes) : one.value.used < other.value.used
        }.map(\.key)
    }
}
