import Dispatch
import Foundation
package import Inference
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
