package import KVCache
package import Parallelism
package import Tensors

/// A publication of keys that was started and is not finished: other ranks may not read the entries yet.
package struct PendingKeys {
    package let set: KeySetID
    fileprivate let pending: Seat.PendingCollective
}

/// Publishing makes rows' keys readable: the rank that computes entries stores them in its own process, and copies are
/// sent to the other processes of the data group that keep them or gather them in this step. Of key sets with a window,
/// ranks receive only the entries that they need (`Step.windows`).
extension Step {
    /// Stores entries of a key set, and starts to make them readable for all ranks of the data group. A rank may
    /// compute what does not read them before it calls `finish`.
    ///
    /// - Parameter keys: a row for each own row that stores an entry (`EntryRows.rows`),
    ///   `[entries, widths of all lanes]`, with the parts of the entry in the order of the set's lanes.
    package func publish(
        _ keys: View, into set: KeySetID, _ seat: Seat
    ) throws(GroupFailure) -> PendingKeys {
        let (group, format) = (cache.format.group(of: set), cache.format[set])
        let entries = entries[group]
        precondition(keys.columns == format.width, "\(keys.columns) columns for the key set \(format.name)")
        // This process has the window entries of its own rows. Of other sets, it may not keep them.
        let staged = format.window == nil ? gatheredKeys : nil
        let (store, slots) = staged.map { ($0.staging, $0.stagingSlots[group]) } ?? (cache, entries.slots)
        var column = 0
        for lane in store.lanes(of: set) {
            seat.kernels.store(keys.columns(column..<column + lane.width), slots: slots, in: lane)
            column += lane.width
        }
        if let windows = windows.first(where: { $0.reach == format.reach }) {
            return PendingKeys(set: set, pending: try deliver(set, windows, entries, seat))
        }
        let pending = try seat.startSharing(
            Sharding.keys, counts: entries.counts, bytesPerRow: format.bytesPerEntry
        ) {
            let copies = seat.scratch.rows(slots.count, store.copyColumns(set))
            store.copy(slots, as: entries.slots, set, into: copies, seat.kernels, seat.scratch)
            return (copies, { storeRemote($0, set) })
        }
        return PendingKeys(set: set, pending: pending)
    }

    /// Begins to send own entries of a window to the ranks that need them.
    private func deliver(
        _ set: KeySetID, _ windows: WindowRows, _ entries: EntryRows, _ seat: Seat
    ) throws(GroupFailure) -> Seat.PendingCollective {
        try seat.startDelivery(
            Sharding.keys, counts: entries.counts, received: windows.received,
            bytesPerRow: cache.format[set].bytesPerEntry
        ) {
            let copies = seat.scratch.rows(windows.slots.count, cache.copyColumns(set))
            cache.copy(windows.slots, set, into: copies, seat.kernels, seat.scratch)
            return .deliver(parts: copies, counts: windows.counts, arriving: windows.arriving) {
                cache.store($0, set)
            }
        }
    }

    /// Waits until every rank of the data group can read the published entries. Where key-gather attention needs them,
    /// it also gathers the entries of earlier steps.
    package func finish(_ keys: PendingKeys, _ seat: Seat) throws(GroupFailure) {
        _ = try seat.finish(keys.pending)
        if cache.format[keys.set].window == nil { try gatheredKeys?.gather(keys.set, from: cache, seat) }
    }

    /// Stores entries that a rank of this or another process computed, in the cache and among the gathered keys.
    ///
    /// - Returns: false if the entries are invalid; see `CacheStore.store`.
    private func storeRemote(_ rows: HostRows, _ set: KeySetID) -> Bool {
        guard cache.store(rows, set) else { return false }
        return gatheredKeys?.store(rows, set) ?? true
    }
}

/// A compressor reads what was published for each of the last tokens, and computes one entry from it.
extension Step {
    /// Copies the last `count` entries that own rows see of an F32 lane; the last one is the row's own.
    ///
    /// - Parameters:
    ///   - set: a key set with a window of at least `count` tokens.
    ///   - rows: own rows, ascending.
    ///   - missing: what stands for an entry before a request's first token, `[1, width]`; zeros when `nil`.
    ///   - out: `[rows * count, width]`, packed.
    package func copyWindow(
        of set: KeySetID, lane: Int, rows: Indices, count: Int, missing: View? = nil, into out: View, _ seat: Seat
    ) {
        let source = cache.lane(lane, of: set)
        let (number, group) = group(of: set)
        precondition(source.dtype == .f32 && group.isWindow, "a window of \(source.dtype) is not copied")
        precondition(count <= cache.format[set].window ?? 0, "\(count) tokens of a shorter window")
        precondition(out.rows == rows.count * count, "\(out.rows) rows for \(rows.count) windows of \(count)")
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let before = missing ?? zeros(out.columns, seat)
        let repeated = seat.kernels.zeros(count, seat.scratch)
        let slots = seat.scratch.indices(count)
        var request = 0
        for at in 0..<rows.count {
            while !own.requests[request].rows.contains(Int(rows[at])) { request += 1 }
            let map = own.requests[request].pages[number]
            let end = Int(own.positions[Int(rows[at])]) + 1
            let absent = max(count - end, 0)
            seat.kernels.copyRows(
                before, xRows: repeated[0..<absent], into: out.rows(at * count..<at * count + absent))
            let seen = slots[absent..<count]
            for place in 0..<seen.count { seen[place] = map.slot(of: end - seen.count + place) }
            seat.kernels.loadEntries(
                seen, of: source, into: out.rows(at * count + absent..<(at + 1) * count), column: 0)
        }
    }

    private func zeros(_ columns: Int, _ seat: Seat) -> View {
        let row = seat.scratch.hostRows(1, columns)
        row.fill(0)
        return row.view
    }
}
