import KVCache
package import Modeling
package import Parallelism
import Planning
import Tensors

/// This extension computes how many pages the KV cache has, and which part of them each process keeps.
extension EngineConfiguration {
    /// Returns how the processes divide the KV cache; `nil` where each process keeps all keys.
    package func processSharding(for model: any Model) -> ProcessKVSharding? {
        guard isDivided(model.positionAlignment) else { return nil }
        let scheduler = scheduler(for: model)
        var processSharding = ProcessKVSharding()
        processSharding.keysPerRow =
            LayoutCost(
                model.description, parallel, format: model.cacheFormat(cacheType, pageSize: pageSize)
            ).dcpBreakEvenKeys
        processSharding.pageSize = pageSize
        // The longest possible request, with its draft tokens.
        processSharding.gatheredPages = (scheduler.contextLength + drafts + pageSize - 1) / pageSize
        processSharding.rows = max(scheduler.maxRowsPerStep, Self.maxRows)
        return processSharding
    }

    /// Returns the number of window pages.
    func windowPages(for scheduler: SchedulerConfiguration) -> Int {
        guard scheduler.window > 0 else { return 0 }
        let rows = scheduler.maxStepsInFlight * scheduler.maxRowsPerStep
        return min(
            CacheFormat.windowPages(atLeast: scheduler.minWindowPages, rows: rows, pageSize: pageSize),
            Self.maxTokens / pageSize)
    }

    /// Returns the number of pages of the KV cache: what the options ask for or, without options, enough for eight
    /// requests of full context in at most half of the memory that a process can use.
    func totalPages(for model: any Model, _ scheduler: SchedulerConfiguration) -> Int {
        let format = model.cacheFormat(cacheType, pageSize: pageSize)
        let (context, windows) = (scheduler.contextLength, format.bytesPerWindowPage * scheduler.windowPages)
        let pages =
            if let maxTotalTokens {
                (maxTotalTokens + pageSize - 1) / pageSize
            } else if let cacheBytesPerRank {
                pages(of: format, bytesPerRank: cacheBytesPerRank, windows: windows)
            } else if let cacheBytesPerProcess {
                min(
                    maxRunningRequests * ((context + pageSize - 1) / pageSize),
                    maxPages(of: format, bytes: max(min(cacheBytesPerProcess, memory.total) - windows, 0)))
            } else {
                min(8 * context / pageSize, maxPages(of: format, bytes: max(memory.available / 2 - windows, 0)))
            }
        return min(max(pages, 1), Self.maxTokens / pageSize)
    }

    /// Returns the number of pages that fit into `bytes` per rank. The ranks of a process share one cache; where
    /// processes divide the keys, their memory adds up.
    ///
    /// - Parameter windows: the bytes of the window pages, which every process has all of.
    private func pages(of format: CacheFormat, bytesPerRank bytes: Int, windows: Int) -> Int {
        let (all, overflow) = bytes.multipliedReportingOverflow(by: ranksHere)
        return maxPages(of: format, bytes: max((overflow ? .max : all) - windows, 0))
    }

    /// Returns the number of pages whose part in this process fits into `bytes`.
    private func maxPages(of format: CacheFormat, bytes: Int) -> Int {
        bytes / max(keptBytes(of: format), 1)
    }

    /// Returns the bytes that a process keeps of each page.
    private func keptBytes(of format: CacheFormat) -> Int {
        guard isDivided(format.positionAlignment) else { return format.bytesPerPage }
        return format.bytesPerPage * ranksHere / parallel.kvSharding.ranks
    }

    private func isDivided(_ positionAlignment: Int) -> Bool {
        ProcessKVSharding.isPossible(
            parallel, processes: processes, entriesPerPage: pageSize / positionAlignment)
    }

    /// Returns a problem if this process cannot reserve the address space of its cache and its ranks, for example under
    /// `ulimit -v`. Checking before the ranks start replaces their failing one after the other.
    private func reservationProblems(for model: any Model, _ format: CacheFormat) -> [String] {
        let scheduler = scheduler(for: model)
        let cache =
            scheduler.totalPages * keptBytes(of: format) + scheduler.windowPages * format.bytesPerWindowPage
        let settings = RankSettings(self, for: model, recording: [])
        let memory = StepMemory(settings, stateWidth: model.stateWidth, ranks: ranksHere, limited: true)
        let scratch = memory.total(settings, ranks: ranksHere)
        let ranks = parallel.context * parallel.tensor
        let sending =
            ranksHere
            * LayoutCost(model.description, parallel, format: format)
            .sendBytes(rows: (settings.maxRows + ranks - 1) / ranks)
        guard let error = Buffer.problem(reserving: cache + scratch + sending) else { return [] }
        return [
            "\(error.bytes) bytes of address space are needed, \(cache) for the KV cache, \(scratch) for the steps of "
                + "\(ranksHere) ranks and \(sending) for rows that they send, but the system does not reserve them (\(error.reason)); lower "
                + "--max-total-tokens, --chunked-prefill-size or --max-running-requests, start fewer ranks or threads "
                + "in a process, or raise its limit (ulimit -v)"
        ]
    }

    /// The memory of one process. Sizes that follow from it keep to what is available; what an operator asks for is
    /// refused only if there can never be as much.
    package var memory: HostMemory { hostMemory.divided(among: processesOnHost) }

    /// Returns the problems with the size of the cache, each as a sentence; empty when it fits the machine.
    func memoryProblems(for model: any Model) -> [String] {
        let format = model.cacheFormat(cacheType, pageSize: pageSize)
        let scheduler = scheduler(for: model)
        let windows = format.bytesPerWindowPage * scheduler.windowPages
        if windows > memory.total / 2 || scheduler.windowPages < scheduler.minWindowPages {
            return [
                "--max-running-requests: the windows of \(maxRunningRequests) requests in pages of \(pageSize) tokens need "
                    + "\(scheduler.minWindowPages) pages of \(format.bytesPerWindowPage) bytes, which is more than half of "
                    + "\(memoryName); lower it or --page-size"
            ]
        }
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
            if cacheBytesPerRank > memory.total / ranks {
                return [
                    "--kv-cache-memory-bytes: \(cacheBytesPerRank) for each of \(ranks) ranks are more than "
                        + "\(memoryName); the nearest legal value is \(memory.total / ranks)"
                ]
            }
        }
        let most = maxPages(of: format, bytes: max(memory.total - windows, 0)) * pageSize
        guard let maxTotalTokens, maxTotalTokens > most else { return reservationProblems(for: model, format) }
        return [
            "--max-total-tokens: \(maxTotalTokens) tokens of \(Int(format.bytesPerToken)) bytes are more than "
                + "\(memoryName); the nearest legal value is \(most)"
        ]
    }

    /// The memory of one process, in words.
    package var memoryName: String {
        processesOnHost > 1
            ? "the \(memory.total) bytes of each of \(processesOnHost) processes on this host"
            : "this machine's memory of \(memory.total) bytes"
    }
}
