import Dispatch
package import Inference
import Synchronization

extension DiskPrefixStore {
    package func restore(_ lookup: PrefixLookup, for engine: Engine) -> Bool {
        refreshIfDue()
        guard state.withLock({ !$0.index.entries.isEmpty && !$0.isStalled }) else { return false }
        searcher.async { [self] in
            let blocks = storedBlocks(of: lookup.prefix)
            guard !blocks.isEmpty else { return Self.end(lookup.request, engine) }
            watch(lookup.request, engine, since: Self.now())
            reader.async { [self] in
                restore(blocks, of: lookup, for: engine)
                noteProgress()
                Self.end(lookup.request, engine)
            }
        }
        return true
    }

    /// Returns the blocks of a prefix that are stored, up to the last one before the first that is not, or, for a model
    /// with windows, up to the last one among those that has its window.
    private func storedBlocks(of prefix: IdentifiedPrefix) -> [ChainedBlock] {
        var (blocks, usable): ([ChainedBlock], Int) = ([], 0)
        for block in BlockChain(prefix, key, blockTokens: blockTokens) {
            guard let length = state.withLock({ $0.index.entries[block.id]?.fileBytes }) else { break }
            blocks.append(block)
            // A file of a length that no block has is read, too: then it is refused and removed.
            if length != partBytes || layout.windowBytes == 0 { usable = blocks.count }
        }
        return Array(blocks.prefix(usable))
    }

    private static func end(_ request: UInt64, _ engine: Engine) {
        engine.exchange { scheduler, _ in
            scheduler.endRestoring(request)
            return []
        }
    }

    /// Ends a request's wait if the reader has made no progress for long, as with a disk that does not answer, or if the
    /// request has waited several times as long for others.
    ///
    /// - Parameter began: when the request began to wait.
    private func watch(_ request: UInt64, _ engine: Engine, since began: UInt64) {
        DispatchQueue.global().asyncAfter(deadline: .now() + settings.maxWaitSeconds) { [weak self, weak engine] in
            guard let self, let engine,
                engine.inspect({ scheduler, _ in scheduler.restoringPages(of: request) }) != .some(nil)
            else { return }
            let progress = state.withLock { $0.progress }
            let now = Self.now()
            func seconds(since time: UInt64) -> Double { now > time ? Double(now - time) * 1e-9 : 0 }
            let isStalled = seconds(since: max(began, progress)) >= settings.maxWaitSeconds
            guard isStalled || seconds(since: began) >= Self.maxWaits * settings.maxWaitSeconds else {
                return watch(request, engine, since: began)
            }
            let isNews = state.withLock { state in
                // The reader may have gone on since.
                guard isStalled, state.progress == progress else { return false }
                defer { state.isStalled = true }
                return !state.isStalled
            }
            if isNews { log("prefix cache on disk: \(directory.path) does not answer; prompts are computed") }
            Self.end(request, engine)
        }
    }

    /// A request waits at most so many times as long as the reader may take for one step.
    private static let maxWaits = 4.0

    /// Records that the reader has read or placed something.
    private func noteProgress() {
        state.withLock { state in
            state.progress = Self.now()
            state.isStalled = false
        }
    }

    /// Places blocks in the cache, unit by unit (`Scheduler.restoredUnit`), as far as they can be read.
    private func restore(_ blocks: [ChainedBlock], of lookup: PrefixLookup, for engine: Engine) {
        var (begin, unit): (Int?, Int) = (nil, blockTokens)
        engine.exchange { scheduler, _ in
            begin = scheduler.beginRestoring(lookup.request)
            unit = scheduler.restoredUnit
            return []
        }
        guard let begin else { return }
        var reached = begin
        while true {
            let first = reached / unit * unit
            let numbers = first / blockTokens..<(first + unit) / blockTokens
            guard numbers.upperBound <= blocks.count, reserve(lookup, to: first + unit, engine) else { break }
            var entries: ArraySlice<UInt8>?
            for number in numbers {
                entries = place(blocks[number], number: number, after: reached, for: lookup, engine)
                if entries == nil { break }
            }
            guard let entries else { break }
            engine.exchange { scheduler, _ in
                scheduler.restored(lookup.request, to: first + unit)
                return []
            }
            placeWindow(in: entries, beforeEndOf: numbers.upperBound - 1, for: lookup, engine)
            let tokens = UInt64(first + unit - reached)
            state.withLock { $0.status.restoredTokens += tokens }
            reached = first + unit
        }
        if reached == begin {
            let end = min(reached, blocks.count * blockTokens) / unit * unit
            if end > 0 { restoreWindow(before: end, blocks[end / blockTokens - 1], for: lookup, engine) }
        }
        use(blocks.prefix(reached / blockTokens).map(\.id))
    }

    /// Places the window before a position, of a prefix whose other entries the cache has.
    ///
    /// - Parameter block: the block that ends at the position.
    private func restoreWindow(
        before end: Int, _ block: ChainedBlock, for lookup: PrefixLookup, _ engine: Engine
    ) {
        guard layout.windowBytes > 0, let entries = readEntries(of: block) else { return }
        placeWindow(in: entries, beforeEndOf: end / blockTokens - 1, for: lookup, engine)
    }

    /// Gives the cache the window before the end of a block whose other entries it has.
    ///
    /// - Parameter entries: the entries of the block; without its window nothing is done.
    private func placeWindow(
        in entries: ArraySlice<UInt8>, beforeEndOf number: Int, for lookup: PrefixLookup, _ engine: Engine
    ) {
        guard layout.windowBytes > 0, entries.count == layout.entryBytes + layout.windowBytes else { return }
        engine.exchange { scheduler, caches in
            scheduler.restoreWindow(lookup.request, before: (number + 1) * blockTokens) {
                layout.unpackWindow(entries, beforeEndOf: number, to: $0, caches.local)
            }
            return []
        }
        noteProgress()
    }

    private func reserve(_ lookup: PrefixLookup, to end: Int, _ engine: Engine) -> Bool {
        var isReserved = false
        engine.exchange { scheduler, _ in
            isReserved = scheduler.reserveRestored(lookup.request, to: end)
            return []
        }
        return isReserved
    }

    /// Reads a block and writes its entries from position `first` on, without those of windows.
    ///
    /// - Returns: all entries of the block; `nil` if they could not be read or written.
    private func place(
        _ block: ChainedBlock, number: Int, after first: Int, for lookup: PrefixLookup, _ engine: Engine
    ) -> ArraySlice<UInt8>? {
        guard let entries = readEntries(of: block) else { return nil }
        for piece in layout.pieces {
            var isPlaced = false
            engine.exchange { scheduler, caches in
                guard let pages = scheduler.restoringPages(of: lookup.request) else { return [] }
                isPlaced = layout.unpack(entries, piece, ofBlock: number, after: first, to: pages.pages, caches.local)
                return []
            }
            guard isPlaced else { return nil }
        }
        noteProgress()
        return entries
    }

    /// Reads the entries of a block, with those of windows if the file has them.
    private func readEntries(of block: ChainedBlock) -> ArraySlice<UInt8>? {
        guard let bytes = read(block) else { return nil }
        do throws(StoredBlock.Damage) {
            let windows = bytes.count == wholeBytes ? layout.windowBytes : 0
            let entries = try StoredBlock.entries(
                in: bytes, of: block, key, entryBytes: layout.entryBytes + windows)
            state.withLock { state in
                state.status.readBlocks += 1
                state.status.readBytes += UInt64(bytes.count)
            }
            return entries
        } catch {
            refuse(block.id, error.reason)
            return nil
        }
    }

    private func read(_ block: ChainedBlock) -> [UInt8]? {
        do throws(StoreDirectory.ReadFailure) {
            return try directory.read(block.id, lengths: [partBytes, wholeBytes])
        } catch {
            switch error {
            case .absent: state.withLock { $0.index.remove(block.id) }
            case .damaged(let reason): refuse(block.id, reason)
            case .unreadable(let reason):
                // The file stays in the index, as it still takes space.
                log("prefix cache on disk: \(directory.path)/\(block.id.fileName) cannot be read: \(reason)")
            }
            return nil
        }
    }

    /// Removes a file that is not what its name says. A server that only reads ignores it from now on.
    private func refuse(_ id: BlockID, _ reason: String) {
        let isWriting = state.withLock { state in
            state.index.remove(id)
            state.status.damagedBlocks += 1
            if !state.status.isWriting { state.refused.insert(id) }
            return state.status.isWriting
        }
        if isWriting { directory.remove(id) }
        log(
            "prefix cache on disk: \(directory.path)/\(id.fileName) is \(isWriting ? "removed" : "not used"): \(reason)"
        )
    }
}
