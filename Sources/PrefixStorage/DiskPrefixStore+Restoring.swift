import Dispatch
package import Inference
import KVCache
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
            let (isNews, awaitsProcesses) = state.withLock { state in
                // The reader may have gone on since.
                guard isStalled, state.progress == progress else { return (false, false) }
                defer { state.isStalled = true }
                return (!state.isStalled, state.awaitsProcesses)
            }
            if isNews {
                let silent = awaitsProcesses ? "another process of this server" : directory.path
                log("prefix cache on disk: \(silent) does not answer; prompts are computed")
            }
            Self.end(request, engine)
        }
    }

    /// A request waits at most so many times as long as the reader may take for one step.
    private static let maxWaits = 4.0

    /// Records that the reader has read something, or that a process has written what it was given.
    private func noteProgress() {
        let isAwaited = state.withLock { state in
            state.progress = Self.now()
            state.isStalled = false
            return state.awaitsProcesses
        }
        if isAwaited { progressed.signal() }
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
    /// - Parameter block: the entries of the block; without its window nothing is done.
    private func placeWindow(
        in block: ArraySlice<UInt8>, beforeEndOf number: Int, for lookup: PrefixLookup, _ engine: Engine
    ) {
        guard layout.windowBytes > 0, block.count == layout.entryBytes + layout.windowBytes, awaitRoom(engine) else {
            return
        }
        let all = layout.windowPieces.flatMap { piece in
            placement.restored(piece, ofBlock: number, from: 0, group: lookup.prefix.group)
                .map { (entries: $0, bytes: layout.bytes(of: $0, in: block)) }
        }
        engine.exchange { scheduler, caches in
            scheduler.restoreWindow(lookup.request, before: (number + 1) * blockTokens) { pages in
                all.allSatisfy { place($0.bytes, as: $0.entries, in: pages, caches) }
            }
            return []
        }
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
            for kept in placement.restored(piece, ofBlock: number, from: first, group: lookup.prefix.group) {
                guard awaitRoom(engine), place(kept, of: entries, for: lookup, engine) else { return nil }
            }
        }
        return entries
    }

    /// Has a process write some entries of a block.
    ///
    /// - Parameter block: the entries of the whole block.
    /// - Returns: false if the request does not wait any more.
    private func place(
        _ entries: ProcessEntries, of block: ArraySlice<UInt8>, for lookup: PrefixLookup, _ engine: Engine
    ) -> Bool {
        let bytes = layout.bytes(of: entries, in: block)
        var isPlaced = false
        engine.exchange { scheduler, caches in
            guard let pages = scheduler.restoringPages(of: lookup.request),
                let pages = layout.pages(ofBlock: entries.block, in: pages.pages)
            else { return [] }
            isPlaced = place(bytes, as: entries, in: pages, caches)
            return []
        }
        return isPlaced
    }

    /// Has a process write entries, and notes when it has. It is called under the engine's lock: steps that are planned
    /// later read them.
    private func place(
        _ bytes: [UInt8], as entries: ProcessEntries, in pages: CacheStore.PageList, _ caches: ServerCaches
    ) -> Bool {
        caches.place(bytes, as: entries.named(in: pages), in: entries.process) { [weak self] in self?.noteProgress() }
    }

    /// Waits while other processes have much to write that they were given, so that what waits for them takes little
    /// memory.
    ///
    /// - Returns: false if the ranks have ended.
    private func awaitRoom(_ engine: Engine) -> Bool {
        defer { state.withLock { $0.awaitsProcesses = false } }
        while true {
            let limit = settings.maxPlacingBytes
            let hasRoom = engine.inspect { _, caches in
                caches.haveEnded ? nil : caches.placingBytes < limit
            }
            guard let hasRoom = hasRoom ?? nil else { return false }
            if hasRoom { return true }
            // What they write from now on is signalled. What they have written since is seen after a moment.
            state.withLock { $0.awaitsProcesses = true }
            _ = progressed.wait(timeout: .now() + 0.05)
        }
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
