import Disaggregation
import Dispatch
import Foundation
package import Inference
import KVCache
package import Modeling
import Parallelism
import Synchronization

/// A prefix store in a directory: a file for each block of each prefix.
///
/// Files are read and written by two threads of this store, never under the engine's lock. Under that lock, entries of the
/// first process are copied between pages and memory, and orders about those of other processes are given (`ServerCaches`),
/// a few MiB at a time; answers are awaited without it. A block is packed from the pages in which the cache has the prefix
/// at that moment; those may change between two pieces of a block, as equal prefixes have equal bytes.
///
/// One server of a directory writes, and the others read; see `StoreDirectory.takeLock`.
package final class DiskPrefixStore: PrefixStore {
    package let blockTokens: Int
    let key: PrefixKey
    let layout: BlockLayout
    let placement: BlockPlacement
    /// The length of a block's file without the windows before its end, and with them. They are equal if the model has no
    /// windows.
    let (partBytes, wholeBytes): (Int, Int)
    let settings: Settings
    let directory: StoreDirectory
    let log: @Sendable (String) -> Void
    let state: Mutex<State>
    let reader = DispatchQueue(label: "braid prefix reader")
    let writer = DispatchQueue(label: "braid prefix writer")
    let searcher = DispatchQueue(label: "braid prefix search")
    /// Is signalled when another process has written what it was given, while the reader waits for that.
    let progressed = DispatchSemaphore(value: 0)

    package struct Settings: Sendable {
        package var path: String
        /// The largest number of bytes that the files occupy together.
        package var limitBytes: Int
        /// The number of tokens of a block, a power of two.
        package var blockTokens = 256
        /// The number of bytes on their way to other processes of the server from which on no more are given to them.
        package var maxPlacingBytes = 8 << 20
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

    /// A stage of reading or writing a file.
    package enum Stage: Sendable { case read, write, rename }

    struct State {
        var index = BlockIndex()
        var status: PrefixStoreStatus
        /// The number of prefixes that wait for the writer.
        var waitingPrefixes = 0
        var nextRefresh: UInt64 = 0
        /// The time until which nothing is written.
        var pausedUntil: UInt64 = 0
        /// The time at which the reader has last read something, or a process has written what it was given.
        var progress: UInt64 = 0
        /// True while the reader waits for other processes of the server to write what they were given.
        var awaitsProcesses = false
        /// True if the reader has made no progress for long; nothing is looked up until it does.
        var isStalled = false
        /// Files that a server which only reads has refused.
        var refused: Set<BlockID> = []
    }

    /// The age of the last use that a file shows, in nanoseconds, after which it is corrected.
    static let touchInterval: Int64 = 60_000_000_000

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

    /// - Parameter fault: returns an error number for a stage that is to fail, and 0 otherwise.
    package init(
        _ settings: Settings, _ model: any Model, _ configuration: EngineConfiguration, digest: String,
        log: @escaping @Sendable (String) -> Void, fault: @escaping @Sendable (Stage) -> Int32
    ) throws(PrefixStoreError) {
        let problems = Self.problems(settings, model, configuration)
        guard problems.isEmpty else { throw PrefixStoreError(problems.joined(separator: "\n")) }
        blockTokens = settings.blockTokens
        key = PrefixKey(model, configuration, digest: digest, blockTokens: settings.blockTokens)
        layout = BlockLayout(model, configuration, blockTokens: settings.blockTokens)
        placement = BlockPlacement(CachePlacement(model, configuration), layout)
        partBytes = StoredBlock.fileBytes(tokens: settings.blockTokens, entryBytes: layout.entryBytes)
        wholeBytes = partBytes + layout.windowBytes
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
        if settings.blockTokens % format.positionAlignment != 0 || settings.blockTokens < format.window {
            problems.append("blocks of \(settings.blockTokens) tokens do not hold whole entries and windows")
        }
        // The window before a page border is then in one page, of which nothing else is needed.
        if configuration.pageSize < format.window {
            problems.append(
                "pages of \(configuration.pageSize) tokens are shorter than the windows of \(format.window) tokens that this "
                    + "model's layers keep; choose a --page-size of at least \(format.window)")
        }
        if configuration.pageSize > maxPageSize {
            problems.append("pages of \(configuration.pageSize) tokens are too large; at most \(maxPageSize) are legal")
        }
        if !configuration.prefixCache { problems.append("the prefix cache is turned off, and it is what is stored") }
        let layout = BlockLayout(model, configuration, blockTokens: settings.blockTokens)
        let least = BlockIndex.occupied(
            StoredBlock.fileBytes(
                tokens: settings.blockTokens, entryBytes: layout.entryBytes + layout.windowBytes))
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
    func refreshIfDue() {
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
    func makeRoom(for bytes: Int) {
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

    func use(_ chain: [BlockID], interval: Int64 = touchInterval) {
        let now = Int64(Date().timeIntervalSince1970 * 1e9)
        let outdated = state.withLock { $0.index.use(chain, at: now, interval: interval) }
        for (id, time) in outdated { directory.touch(id, time) }
    }

    static func now() -> UInt64 { Meter.now() }
}
