import KVCache
import Modeling
import Parallelism

/// Processes divide the KV cache by these settings: each process stores only the keys that its ranks own
/// (`--dcp-size`).
///
/// A row then reaches keys of other processes in one of two ways. In query-gather attention its queries go to the
/// owners of the keys. In key-gather attention, chosen where it sends fewer bytes, every process receives the request's
/// keys, one layer at a time, and the rows' owners read all of them.
package struct ProcessKVSharding: Sendable, Equatable {
    /// One row of query-gather attention sends and receives as many bytes as the keys of this many tokens have.
    package var keysPerRow = 1
    /// The number of tokens in a page.
    package var pageSize = 1
    /// The maximum number of pages whose keys a step gathers.
    package var gatheredPages = 1
    /// The maximum number of rows of a step that one rank owns.
    package var rows = 1

    package init() {}

    /// Returns whether each process stores only a part of the keys. That requires that ranks divide evenly among the
    /// processes, that a process has fewer ranks than there are key owners, and that a page's entries divide evenly
    /// among the owners. Otherwise each process stores all keys.
    ///
    /// - Parameter entriesPerPage: the entries of a page in the key set that has fewest.
    static func isPossible(_ parallel: ParallelConfiguration, processes: Int, entriesPerPage: Int) -> Bool {
        parallel.world % processes == 0 && parallel.world / processes < parallel.kvSharding.ranks
            && KVShard.isPossible(
                pageSize: entriesPerPage, run: parallel.kvSharding.unit, owners: parallel.kvSharding.ranks)
    }

    /// Returns the chunks, of those given of one data group, that use key-gather attention: chunks with enough rows for
    /// their earlier keys, in the given order, while `gatheredPages` suffices.
    func gatheredKeys(among chunks: [Int], _ plan: StepPlan) -> Set<Int> {
        var (gatheredKeys, room) = (Set<Int>(), gatheredPages)
        for index in chunks {
            let chunk = plan.chunks[index]
            guard chunk.start <= chunk.tokens.count * keysPerRow, chunk.pages.count <= room else { continue }
            room -= chunk.pages.count
            gatheredKeys.insert(index)
        }
        return gatheredKeys
    }
}

extension ProcessKVSharding {
    /// The memory that a rank needs in addition to the cache for keys of its rows.
    struct Buffers {
        /// The store of gathered keys; the ranks of a data group and pipeline stage share it.
        let gathered: CacheStore
        /// The store for the entries of the rank's own rows until their owners store them; every rank has its own.
        let staging: CacheStore
    }

    /// Allocates the memory for each of `ranks`.
    func buffers(_ format: CacheFormat, for ranks: Range<Int>, _ parallel: ParallelConfiguration) -> [Buffers] {
        var gathered: [Int: CacheStore] = [:]
        let stagingPages = (rows + pageSize - 1) / pageSize
        return ranks.map { rank in
            // Ranks of a data group and stage have consecutive numbers.
            let group = rank / (parallel.context * parallel.tensor)
            let store = gathered[group] ?? CacheStore(format: format, pages: gatheredPages, keepsOneLayer: true)
            gathered[group] = store
            return Buffers(
                gathered: store,
                staging: CacheStore(format: format.withOneTokenPerEntry, pages: stagingPages, keepsOneLayer: true))
        }
    }
}
