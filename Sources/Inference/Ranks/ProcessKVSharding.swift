import KVCache
import Modeling
import Parallelism

/// How processes divide the keys among them: each keeps only what its ranks own (`--dcp-size`).
///
/// Rows then reach keys in one of two ways. Their queries go to the keys' owners; or, where that is less to send, the
/// keys of the request come to every process, one layer at a time, and rows' owners read all of them.
package struct ProcessKVSharding: Sendable, Equatable {
    /// What a row sends and gets when its queries travel weighs as much as the keys of so many tokens.
    package var keysPerRow = 1
    /// Tokens of a page.
    package var pageSize = 1
    /// Pages that may visit in a step.
    package var gatheredPages = 1
    /// Rows of a step that a rank may own.
    package var rows = 1

    package init() {}

    /// Whether each process keeps less than all: ranks divide evenly among the processes, a process has fewer of them
    /// than there are owners, and a page's entries divide evenly among the owners. Otherwise each keeps all keys.
    ///
    /// - Parameter entriesPerPage: of the key set that has fewest.
    static func isPossible(_ parallel: ParallelConfiguration, processes: Int, entriesPerPage: Int) -> Bool {
        parallel.world % processes == 0 && parallel.world / processes < parallel.kvSharding.ranks
            && KVShard.isPossible(
                pageSize: entriesPerPage, run: parallel.kvSharding.unit, owners: parallel.kvSharding.ranks)
    }

    /// Which of some chunks of a data group let their keys visit, in their order, as long as there is room.
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
    /// Memory of this process, beside the cache, for what a rank's rows need of keys.
    struct Buffers {
        /// Shared by the ranks of a data group and stage.
        let gathered: CacheStore
        /// The rank's own: an entry for each of its rows.
        let staging: CacheStore
    }

    /// Buffers for each of some ranks.
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
