import Foundation
import KVCache
import Modeling
import Parallelism
import Planning
import Tensors

/// How many tokens the cache holds, and which process keeps what of them.
extension EngineConfiguration {
    /// How the processes divide the keys among them; `nil` where each keeps all.
    func processSharding(for model: any Model) -> ProcessKVSharding? {
        guard isDivided(model.positionAlignment) else { return nil }
        let scheduler = scheduler(for: model)
        var processSharding = ProcessKVSharding()
        processSharding.keysPerRow =
            LayoutCost(
                model.description, parallel, format: model.cacheFormat(cacheType, pageSize: pageSize)
            ).dcpBreakEvenKeys
        processSharding.pageSize = pageSize
        // The longest request there can be, with what is guessed behind it.
        processSharding.gatheredPages = (scheduler.contextLength + drafts + pageSize - 1) / pageSize
        processSharding.rows = max(scheduler.maxRowsPerStep, Self.maxRows)
        return processSharding
    }

    /// Window pages: those that running requests need at least, as many again for prefixes that later requests find, and
    /// those of all rows in flight, so that nobody waits for another's.
    func windowPages(for scheduler: SchedulerConfiguration) -> Int {
        guard scheduler.window > 0 else { return 0 }
        let rows = scheduler.maxStepsInFlight * scheduler.maxRowsPerStep
        return min(2 * scheduler.minWindowPages + (rows + pageSize - 1) / pageSize, Self.maxTokens / pageSize)
    }

    /// Pages of the cache.
    func totalPages(for model: any Model, _ scheduler: SchedulerConfiguration) -> Int {
        let format = model.cacheFormat(cacheType, pageSize: pageSize)
        let (context, windows) = (scheduler.contextLength, format.bytesPerWindowPage * scheduler.windowPages)
        let pages =
            if let maxTotalTokens {
                (maxTotalTokens + pageSize - 1) / pageSize
            } else if let cacheBytesPerRank {
                pages(of: format, bytesPerRank: cacheBytesPerRank, windows: windows)
            } else {
                min(8 * context / pageSize, maxPages(of: format, bytes: max(Self.physicalMemory / 2 - windows, 0)))
            }
        return min(max(pages, 1), Self.maxTokens / pageSize)
    }

    /// Pages that so many bytes of each rank hold: the ranks of a process share one cache, and processes add theirs where
    /// they divide the keys.
    ///
    /// - Parameter windows: bytes of the window pages, of which every process has all.
    private func pages(of format: CacheFormat, bytesPerRank bytes: Int, windows: Int) -> Int {
        let (all, overflow) = bytes.multipliedReportingOverflow(by: ranksHere)
        return maxPages(of: format, bytes: max((overflow ? .max : all) - windows, 0))
    }

    /// Pages of which a process keeps its part in so many bytes.
    private func maxPages(of format: CacheFormat, bytes: Int) -> Int {
        bytes / max(keptBytes(of: format), 1)
    }

    /// What a process keeps of a page.
    private func keptBytes(of format: CacheFormat) -> Int {
        guard isDivided(format.positionAlignment) else { return format.bytesPerPage }
        return format.bytesPerPage * ranksHere / parallel.kvSharding.ranks
    }

    private func isDivided(_ positionAlignment: Int) -> Bool {
        ProcessKVSharding.isPossible(
            parallel, processes: processes, entriesPerPage: pageSize / positionAlignment)
    }

    /// Says that this process cannot reserve what its cache and its ranks need, as under `ulimit -v`: before the ranks are
    /// started, as they would fail one after the other.
    private func reservationProblems(for model: any Model, _ format: CacheFormat) -> [String] {
        let scheduler = scheduler(for: model)
        let cache =
            scheduler.totalPages * keptBytes(of: format) + scheduler.windowPages * format.bytesPerWindowPage
        let settings = RankSettings(self, for: model, recording: [], isTraced: false)
        let memory = StepMemory(settings, stateWidth: model.stateWidth, ranks: ranksHere, limited: true)
        let scratch = memory.total(settings, ranks: ranksHere)
        guard let error = Buffer.problem(reserving: cache + scratch) else { return [] }
        return [
            "\(error.bytes) bytes of address space are needed, \(cache) for the KV cache and \(scratch) for the steps of "
                + "\(ranksHere) ranks, but the system does not reserve them (\(error.reason)); lower "
                + "--max-total-tokens, --chunked-prefill-size or --max-running-requests, start fewer ranks or threads "
                + "in a process, or raise its limit (ulimit -v)"
        ]
    }

    private static var physicalMemory: Int { Int(clamping: ProcessInfo.processInfo.physicalMemory) }

    /// What is wrong with the size of the cache.
    func memoryProblems(for model: any Model) -> [String] {
        let format = model.cacheFormat(cacheType, pageSize: pageSize)
        let windows = format.bytesPerWindowPage * scheduler(for: model).windowPages
        if let cacheBytesPerRank {
            if maxTotalTokens != nil {
                return [
                    "--max-total-tokens and --kv-cache-memory-bytes both say how large the cache is; give one of them"
                ]
            }
            let ranks = ranksHere
            if pages(of: format, bytesPerRank: cacheBytesPerRank, windows: windows) == 0 {
                return [
                    "--kv-cache-memory-bytes: \(cacheBytesPerRank) hold no page of \(pageSize) tokens; the nearest legal "
                        + "value is \((keptBytes(of: format) + windows + ranks - 1) / ranks)"
                ]
            }
            if cacheBytesPerRank > Self.physicalMemory / ranks {
                return [
                    "--kv-cache-memory-bytes: \(cacheBytesPerRank) for each of \(ranks) ranks are more than this "
                        + "machine's memory; the nearest legal value is \(Self.physicalMemory / ranks)"
                ]
            }
        }
        let most = maxPages(of: format, bytes: max(Self.physicalMemory - windows, 0)) * pageSize
        guard let maxTotalTokens, maxTotalTokens > most else { return reservationProblems(for: model, format) }
        return [
            "--max-total-tokens: \(maxTotalTokens) tokens of \(Int(format.bytesPerToken)) bytes are more than this "
                + "machine's memory; the nearest legal value is \(most)"
        ]
    }
}
