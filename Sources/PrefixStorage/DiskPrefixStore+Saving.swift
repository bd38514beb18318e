import Dispatch
import Foundation
package import Inference
import KVCache
import Synchronization

extension DiskPrefixStore {
    /// The largest number of prefixes that wait for the writer; more are dropped.
    private static let maxWaitingPrefixes = 256

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

    /// Writes those blocks of a prefix that are not stored yet, as far as the cache still has them. A block that is stored
    /// without its window is written again when the cache has the window.
    private func write(_ prefix: IdentifiedPrefix, from engine: Engine) {
        var (chain, hasGrown): ([BlockID], Bool) = ([], false)
        for (number, block) in BlockChain(prefix, key, blockTokens: blockTokens).enumerated() {
            let stored = state.withLock { $0.index.entries[block.id]?.fileBytes }
            let window = stored == wholeBytes ? nil : packWindow(beforeEndOf: number, of: prefix, from: engine)
            if stored != nil, window == nil {
                chain.append(block.id)
                continue
            }
            guard let bytes = pack(block, number: number, window, of: prefix, from: engine) else { break }
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

    /// Returns the entries of the windows before a block's end; `nil` if the cache does not have them, or if the model has
    /// no windows.
    private func packWindow(
        beforeEndOf number: Int, of prefix: IdentifiedPrefix, from engine: Engine
    ) -> [UInt8]? {
        guard layout.windowBytes > 0 else { return nil }
        var bytes = [UInt8](repeating: 0, count: layout.windowBytes)
        for piece in layout.windowPieces {
            let entries = placement.saved(piece, ofBlock: number, group: prefix.group)
            let isPacked = pack(entries, from: engine, into: &bytes, at: -layout.entryBytes) { scheduler in
                scheduler.cachedWindow(of: prefix, before: (number + 1) * blockTokens)
            }
            guard isPacked else { return nil }
        }
        return bytes
    }

    /// Returns a block's file; `nil` if the cache does not have the block any more.
    ///
    /// - Parameter window: the entries of the windows before the block's end, if they are known.
    private func pack(
        _ block: ChainedBlock, number: Int, _ window: [UInt8]?, of prefix: IdentifiedPrefix, from engine: Engine
    ) -> [UInt8]? {
        var bytes = StoredBlock.beginning(block, key, entryBytes: layout.entryBytes + (window?.count ?? 0))
        let start = bytes.count
        bytes += repeatElement(0, count: layout.entryBytes)
        for piece in layout.pieces {
            let entries = placement.saved(piece, ofBlock: number, group: prefix.group)
            let isPacked = pack(entries, from: engine, into: &bytes, at: start) { scheduler in
                layout.pages(ofBlock: number, in: scheduler.cachedPages(of: prefix))
            }
            guard isPacked else { return nil }
        }
        bytes += window ?? []
        StoredBlock.finish(&bytes)
        return bytes
    }

    /// Has entries packed by the processes that keep them, waits for them, and copies them to their places.
    ///
    /// - Parameters:
    ///   - bytes: have space for the entries of a block.
    ///   - start: the index in `bytes` at which these would begin.
    ///   - find: returns the pages that have the entries; `nil` if the cache does not have them any more. It is called
    ///     under the engine's lock.
    /// - Returns: false if the cache does not have them any more, or its ranks have ended.
    private func pack(
        _ entries: [ProcessEntries], from engine: Engine, into bytes: inout [UInt8], at start: Int,
        _ find: (borrowing Scheduler) -> CacheStore.PageList?
    ) -> Bool {
        let packing = EntryPacking(entries)
        let caches = engine.inspect { scheduler, caches -> ServerCaches? in
            guard let pages = find(scheduler) else { return nil }
            packing.begin(in: pages, caches)
            return caches
        }
        guard let caches = caches ?? nil, let packed = packing.wait(for: caches) else { return false }
        for (entries, packed) in zip(entries, packed) { layout.copy(packed, of: entries, into: &bytes, at: start) }
        return true
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
