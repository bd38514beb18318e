import Dispatch
import Foundation
package import Inference
import KVCache
package import Modeling
import Parallelism
import Synchronization

/// A prefix store in a directory: a file for each block of each prefix.
///
/// Files are read and written by two threads of this store, never under the engine's lock. Under that lock, entries are
/// copied between pages and memory, a few MiB at a time. A block is packed from the pages in which the cache has the
/// prefix at that moment; those may change between two pieces of a block, as equal prefixes have equal bytes.
///
/// One server of a directory writes, and the others read; see `StoreDirectory.takeLock`.
package final class DiskPrefixStore: PrefixStore {
    package let blockTokens: Int
    private let key: PrefixKey
    private let layout: BlockLayout
    private let fileBytes: Int
    private let settings: Settings
    private let directory: StoreDirectory
    private let log: @Sendable (String) -> Void
    private let state: Mutex<State>
    private let reader = DispatchQueue(label: "braid prefix reader")
    private let writer = DispatchQueue(label: "braid prefix writer")
    private let searcher = DispatchQueue(label: "braid prefix search")

    package struct Settings: Sendable {
        package var path: String
        /// The largest number of bytes that the files occupy together.
        package var limitBytes: Int
        /// The number of tokens of a block, a power of two.
        package var blockTokens = 256
        /// The seconds without progress of the reader after which a request no longer waits for it.
        package var maxWaitSeconds = 30.0
        /// The seconds after which a server that only reads looks for new files, or tries to become the writer.
        package var refreshSeconds = 5.0
        /// The seconds without writing after a write has failed.
        package var pauseSeconds = 60.0

        package init(path: String, limitBytes: Int) {
            self.path = path
            self.limitBytes = limitBytes
        }
    }

    /// A stage of writing a file.
    package enum WriteStage: Sendable { case write, rename }

    private struct State {
        var index = BlockIndex()
        var status: PrefixStoreStatus
        /// The number of prefixes that wait for the writer.
        var waitingPrefixes = 0
        var nextRefresh: UInt64 = 0
        /// The time until which nothing is written.
        var pausedUntil: UInt64 = 0
        /// The time at which the reader has last read or placed something.
        var progress: UInt64 = 0
        /// True if the reader has made no progress for long; nothing is looked up until it does.
        var isStalled = false
        /// Files that a server which only reads has refused.
        var refused: Set<BlockID> = []
    }

    /// The largest number of prefixes that wait for the writer; more are dropped.
    private static let maxWaitingPrefixes = 256
    /// The age of the last use that a file shows, in nanoseconds, after which it is corrected.
    private static let touchInterval: Int64 = 60_000_000_000

    /// Opens the directory.
    ///
    /// - Parameters:
    ///   - digest: identifies the model's files.
    ///   - log: receives single lines that an operator should read.
    /// - Throws: if the store cannot be used with this model, configuration or directory.
    package convenience init(
        _ settings: Settings, _ model: any Model, _ configuration: EngineConfiguration, digest: String,
        log: @escaping @Sendable (String) -> Void
    ) throws(PrefixStoreError) {
        try self.init(settings, model, configuration, digest: digest, log: log, fault: { _ in 0 })
    }

    /// - Parameter fault: returns an error number for a stage of a write that is to fail, and 0 otherwise.
    package init(
        _ settings: Settings, _ model: any Model, _ configuration: EngineConfiguration, digest: String,
        log: @escaping @Sendable (String) -> Void, fault: @escaping @Sendable (WriteStage) -> Int32
    ) throws(PrefixStoreError) {
        let problems = Self.problems(settings, model, configuration)
        guard problems.isEmpty else { throw PrefixStoreError(problems.joined(separator: "\n")) }
        blockTokens = settings.blockTokens
        key = PrefixKey(model, configuration, digest: digest, blockTokens: settings.blockTokens)
        layout = BlockLayout(model, configuration, blockTokens: settings.blockTokens)
        fileBytes = StoredBlock.fileBytes(tokens: settings.blockTokens, entryBytes: layout.entryBytes)
        self.settings = settings
        self.log = log
        directory = try StoreDirectory(settings.path, fault: fault)
        state = Mutex(State(status: PrefixStoreStatus(directory: settings.path, limitBytes: settings.limitBytes)))
        let isWriting = try directory.takeLock()
        scan(isWriting: isWriting)
        if isWriting { makeRoom(for: 0) }
    }

    /// Returns why a store cannot be used, a line each; empty if it can.
    package static func problems(
        _ settings: Settings, _ model: any Model, _ configuration: EngineConfiguration
    ) -> [String] {
        let format = model.cacheFormat(configuration.cacheType, pageSize: configuration.pageSize)
        var problems: [String] = []
        if format.window > 0 {
            problems.append(
                "this model's layers keep windows of keys, which are not stored yet; leave the prefix cache on disk out"
            )
        } else if settings.blockTokens % format.positionAlignment != 0 {
            problems.append("blocks of \(settings.blockTokens) tokens do not hold whole entries")
        }
        if configuration.pageSize > maxPageSize {
            problems.append("pages of \(configuration.pageSize) tokens are too large; at most \(maxPageSize) are legal")
        }
        if configuration.processes > 1 {
            problems.append(
                "a server of \(configuration.processes) processes cannot store prefixes yet; run its ranks in one process"
            )
        }
        if !configuration.prefixCache { problems.append("the prefix cache is turned off, and it is what is stored") }
        let layout = BlockLayout(model, configuration, blockTokens: settings.blockTokens)
        let least = BlockIndex.occupied(
            StoredBlock.fileBytes(tokens: settings.blockTokens, entryBytes: layout.entryBytes))
        if settings.limitBytes < least {
            problems.append(
                "\(settings.limitBytes) bytes hold no block of \(settings.blockTokens) tokens, which has \(least) bytes"
            )
        }
        return problems
    }

    private static let maxPageSize = 4096

    package var status: PrefixStoreStatus {
        state.withLock { state in
            var status = state.status
            (status.blocks, status.bytes) = (state.index.entries.count, state.index.bytes)
            return status
        }
    }

    /// Waits until nothing is being read or written.
    package func waitUntilIdle() {
        searcher.sync {}
        reader.sync {}
        writer.sync {}
    }

    /// Waits until everything that is to be written is written, at most for so many seconds. It blocks this thread.
    ///
    /// - Returns: false if something is left.
    package func finishWriting(within seconds: Double) -> Bool {
        let done = DispatchSemaphore(value: 0)
        writer.async { done.signal() }
        return done.wait(timeout: .now() + seconds) == .success
    }

    /// Waits until nothing is being read or written, and then writes nothing more, so that another server can.
    package func close() {
        waitUntilIdle()
        state.withLock { state in
            state.status.isWriting = false
            state.nextRefresh = .max
        }
        directory.releaseLock()
    }

    // MARK: - The directory

    /// Reads the names in the directory.
    private func scan(isWriting: Bool) {
        let refused = state.withLock { $0.refused }
        var index = BlockIndex()
        for file in directory.list(removesRemains: isWriting) where isWriting || !refused.contains(file.id) {
            index.add(file.id, fileBytes: file.bytes, used: file.used)
        }
        state.withLock { [index] state in
            state.index = index
            if isWriting { state.refused = [] }
            state.status.isWriting = isWriting
            state.nextRefresh = Self.now() + UInt64(settings.refreshSeconds * 1e9)
        }
    }

    /// Looks for new files, or becomes the writer, if this server only reads and has not tried that for a while.
    private func refreshIfDue() {
        let isDue = state.withLock { state in
            guard !state.status.isWriting, state.nextRefresh <= Self.now() else { return false }
            state.nextRefresh = Self.now() + UInt64(settings.refreshSeconds * 1e9)
            return true
        }
        guard isDue else { return }
        writer.async { [self] in
            guard state.withLock({ !$0.status.isWriting && $0.nextRefresh < .max }) else { return }
            // A lock that the system refuses may be granted later.
            let isWriting = (try? directory.takeLock()) ?? false
            scan(isWriting: isWriting)
            guard isWriting else { return }
            makeRoom(for: 0)
            log("prefix cache on disk: this server writes \(directory.path) from now on")
        }
    }

    /// Evicts the least recently used blocks until there is space for so many bytes more.
    private func makeRoom(for bytes: Int) {
        let limit = settings.limitBytes - bytes
        // The order is made outside of the lock, for which the engine may wait.
        guard let index = state.withLock({ $0.index.bytes <= limit ? nil : $0.index }) else { return }
        let candidates = index.leastRecentlyUsed
        // Some more are evicted, so that not every block that is written needs the order anew.
        let target = limit - settings.limitBytes / 64
        for id in candidates {
            guard state.withLock({ $0.index.bytes > target }) else { return }
            if let used = directory.used(id), used > state.withLock({ $0.index.entries[id]?.used ?? .max }) {
                // Another server has used it.
                state.withLock { $0.index.note(id, used: used) }
                continue
            }
            guard directory.remove(id) else { continue }
            state.withLock { state in
                state.index.remove(id)
                state.status.evictedBlocks += 1
            }
        }
    }

    private func use(_ chain: [BlockID], interval: Int64 = touchInterval) {
        let now = Int64(Date().timeIntervalSince1970 * 1e9)
        let outdated = state.withLock { $0.index.use(chain, at: now, interval: interval) }
        for (id, time) in outdated { directory.touch(id, time) }
    }

    private static func now() -> UInt64 { Meter.now() }
}

// MARK: - Restoring

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

    /// Returns the blocks of a prefix that are stored, up to the first that is not.
    private func storedBlocks(of prefix: IdentifiedPrefix) -> [ChainedBlock] {
        var blocks: [ChainedBlock] = []
        for block in BlockChain(prefix, key, blockTokens: blockTokens) {
            guard state.withLock({ $0.index.contains(block.id) }) else { break }
            blocks.append(block)
        }
        return blocks
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
            guard numbers.allSatisfy({ place(blocks[$0], number: $0, after: reached, for: lookup, engine) }) else {
                break
            }
            engine.exchange { scheduler, _ in
                scheduler.restored(lookup.request, to: first + unit)
                return []
            }
            let tokens = UInt64(first + unit - reached)
            state.withLock { $0.status.restoredTokens += tokens }
            reached = first + unit
        }
        use(blocks.prefix(reached / blockTokens).map(\.id))
    }

    private func reserve(_ lookup: PrefixLookup, to end: Int, _ engine: Engine) -> Bool {
        var isReserved = false
        engine.exchange { scheduler, _ in
            isReserved = scheduler.reserveRestored(lookup.request, to: end)
            return []
        }
        return isReserved
    }

    /// Reads a block and writes its entries from position `first` on.
    private func place(
        _ block: ChainedBlock, number: Int, after first: Int, for lookup: PrefixLookup, _ engine: Engine
    ) -> Bool {
        guard let bytes = read(block) else { return false }
        let entries: ArraySlice<UInt8>
        do throws(StoredBlock.Damage) {
            entries = try StoredBlock.entries(in: bytes, of: block, key, entryBytes: layout.entryBytes)
        } catch {
            refuse(block.id, error.reason)
            return false
        }
        for piece in layout.pieces {
            var isPlaced = false
            engine.exchange { scheduler, caches in
                guard let pages = scheduler.restoringPages(of: lookup.request) else { return [] }
                isPlaced = layout.unpack(entries, piece, ofBlock: number, after: first, to: pages.pages, caches.local)
                return []
            }
            guard isPlaced else { return false }
        }
        noteProgress()
        state.withLock { state in
            state.status.readBlocks += 1
            state.status.readBytes += UInt64(bytes.count)
        }
        return true
    }

    private func read(_ block: ChainedBlock) -> [UInt8]? {
        do throws(StoreDirectory.ReadFailure) {
            return try directory.read(block.id, bytes: fileBytes)
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

// MARK: - Saving

extension DiskPrefixStore {
    package func save(_ prefix: IdentifiedPrefix, from engine: Engine) {
        refreshIfDue()
        let isAccepted = state.withLock { state in
            guard state.status.isWriting else { return false }
            guard state.waitingPrefixes < Self.maxWaitingPrefixes, state.pausedUntil <= Self.now() else {
                state.status.droppedPrefixes += 1
                return false
            }
            state.waitingPrefixes += 1
            return true
        }
        guard isAccepted else { return }
        writer.async { [self] in
            let isPaused = state.withLock { state in
                let isPaused = state.pausedUntil > Self.now()
                if isPaused { state.status.droppedPrefixes += 1 }
                return isPaused
            }
            if !isPaused { write(prefix, from: engine) }
            state.withLock { $0.waitingPrefixes -= 1 }
        }
    }

    /// Writes those blocks of a prefix that are not stored yet, as far as the cache still has them.
    private func write(_ prefix: IdentifiedPrefix, from engine: Engine) {
        var (chain, hasGrown): ([BlockID], Bool) = ([], false)
        for (number, block) in BlockChain(prefix, key, blockTokens: blockTokens).enumerated() {
            if state.withLock({ $0.index.contains(block.id) }) {
                chain.append(block.id)
                continue
            }
            guard let bytes = pack(block, number: number, of: prefix, from: engine) else { break }
            makeRoom(for: BlockIndex.occupied(bytes.count))
            do throws(PrefixStoreError) {
                try directory.save(block.id, bytes)
            } catch {
                pause(error)
                break
            }
            let now = Int64(Date().timeIntervalSince1970 * 1e9)
            state.withLock { state in
                state.index.add(block.id, fileBytes: bytes.count, used: now)
                state.status.writtenBlocks += 1
                state.status.writtenBytes += UInt64(bytes.count)
            }
            chain.append(block.id)
            hasGrown = true
        }
        // New files show when they were written, the first block's before the last one's: the order of eviction is the
        // reverse.
        use(chain, interval: hasGrown ? 0 : Self.touchInterval)
    }

    /// Returns a block's file; `nil` if the cache does not have the block any more.
    private func pack(
        _ block: ChainedBlock, number: Int, of prefix: IdentifiedPrefix, from engine: Engine
    ) -> [UInt8]? {
        var bytes = StoredBlock.beginning(block, key, entryBytes: layout.entryBytes)
        for piece in layout.pieces {
            let isPacked = engine.inspect { scheduler, cache in
                layout.pack(piece, ofBlock: number, in: scheduler.cachedPages(of: prefix), cache, into: &bytes)
            }
            guard isPacked == true else { return nil }
        }
        StoredBlock.finish(&bytes)
        return bytes
    }

    /// A block could not be written: nothing is written for a while, and service goes on.
    private func pause(_ error: PrefixStoreError) {
        let isFirst = state.withLock { state in
            let isFirst = state.pausedUntil <= Self.now()
            state.pausedUntil = Self.now() + UInt64(settings.pauseSeconds * 1e9)
            state.status.failedWrites += 1
            state.status.droppedPrefixes += 1
            return isFirst
        }
        guard isFirst else { return }
        log(
            "prefix cache on disk: \(directory.path) cannot be written: \(error); nothing is written for "
                + "\(Int(settings.pauseSeconds)) seconds")
    }
}
