import Foundation
import KVCache
package import Models
package import Tensors

/// How an engine is run. Every value has a default that works; `validate` says everything that is wrong at once.
package struct EngineConfiguration: Sendable, Equatable {
    /// Element type of the cache. F32 keeps the reference's bits; BF16 halves the memory and rounds keys once.
    package var cacheType = DType.f32
    /// Tokens of a page, a power of two.
    package var pageSize = 64
    /// Tokens of the KV cache, all requests together; `nil` for what half of the machine's memory holds, at most
    /// eight times the context length.
    package var maxTotalTokens: Int?
    /// Prompt and new tokens of a request, at most; `nil` for what the model was made for.
    package var contextLength: Int?
    package var maxRunningRequests = 64
    package var maxQueuedRequests = 1024
    /// Prompt tokens of one request computed in one step; -1 for no limit.
    package var chunkedPrefillSize = 1024
    /// Instruction-set level; `nil` for the best.
    package var kernels: Kernels.Level?

    package init() {}

    /// What the scheduler is told.
    package func scheduler(for model: any Model) -> SchedulerConfiguration {
        let context = contextLength ?? model.contextLength
        let tokens = maxTotalTokens ?? defaultTotalTokens(for: model, context: context)
        var scheduler = SchedulerConfiguration(
            totalPages: max(1, (tokens + pageSize - 1) / pageSize), contextLength: context,
            vocabularySize: model.vocabularySize)
        scheduler.pageSize = pageSize
        scheduler.maxRunningRequests = maxRunningRequests
        scheduler.maxQueuedRequests = maxQueuedRequests
        scheduler.chunkedPrefillSize = chunkedPrefillSize
        scheduler.maxRowsPerStep = max(chunkedPrefillSize, 1024) + maxRunningRequests
        scheduler.maxTopLogProbs = min(scheduler.maxTopLogProbs, model.vocabularySize)
        return scheduler
    }

    /// All problems, each a sentence with the nearest legal value; empty when the configuration can be used.
    package func validate(for model: any Model) -> [String] {
        var problems: [String] = []
        if cacheType != .f32 && cacheType != .bf16 {
            problems.append("the KV cache cannot hold \(cacheType); legal: auto, float32, bfloat16")
        }
        if let contextLength, contextLength > model.contextLength {
            problems.append(
                "context_length: \(contextLength) is more than the model was made for; "
                    + "the nearest legal value is \(model.contextLength)")
        }
        if let maxTotalTokens, maxTotalTokens < 1 {
            problems.append("max_total_tokens: \(maxTotalTokens) is not positive; the nearest legal value is 1")
        }
        if let kernels, Kernels(kernels) == nil {
            let levels = Kernels.available.map(\.level.rawValue).joined(separator: ", ")
            problems.append("this processor has no \(kernels.rawValue) kernels; legal: \(levels)")
        }
        guard problems.isEmpty, pageSize > 0 else {
            return problems + (pageSize > 0 ? [] : ["page_size: \(pageSize) is not positive; try 64"])
        }
        return scheduler(for: model).validate().map(\.description)
    }

    private func defaultTotalTokens(for model: any Model, context: Int) -> Int {
        guard pageSize > 0, pageSize & (pageSize - 1) == 0 else { return context }
        let bytesPerToken = model.cacheFormat(cacheType, pageSize: pageSize).bytesPerToken
        let memory = Double(ProcessInfo.processInfo.physicalMemory) / 2
        return max(min(8 * context, Int(memory / max(bytesPerToken, 1))), pageSize)
    }
}
