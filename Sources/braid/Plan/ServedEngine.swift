package import JSON
package import KVCache

/// What `/server_info` says of an engine, as far as it decides how fast it is.
package struct ServedEngine: Sendable, Equatable {
    package let modelPath: String
    package let vocabularySize: Int
    /// The parallel configuration, in its notation.
    package let notation: String
    package let threadsPerRank: Int
    package let processes: Int
    /// The maximum number of prompt tokens of one request in a step.
    package let chunk: Int
    package let pageSize: Int
    package let cache: CacheType
    /// The draft tokens of a decode step.
    package let drafts: Int
    /// The names of the numerics profile and of the kernels' level.
    package let dtype: String
    package let kernels: String

    /// - Throws: `CommandError` that names the first member that is missing or cannot be true.
    package init(_ info: JSONValue) throws {
        func refusal(_ name: String) -> CommandError {
            CommandError(
                "--compare: /server_info has no '\(name)' that can be used: \((info[name] ?? .null).summary); the server "
                    + "must be a Braid of version 0.1.0 or later, asked for directly and not through a router")
        }
        func count(_ name: String, _ legal: ClosedRange<Int>) throws -> Int {
            guard let value = info[name]?.integer, legal.contains(value) else { throw refusal(name) }
            return value
        }
        func text(_ name: String) throws -> String {
            guard let value = info[name]?.string, !value.isEmpty, value.utf8.count <= 4096 else { throw refusal(name) }
            return value
        }
        modelPath = try text("model_path")
        vocabularySize = try count("vocab_size", 1...Parsing.maxTokens)
        notation = try text("layout_notation")
        threadsPerRank = try count("threads_per_rank", 1...Parsing.maxRanks)
        processes = try count("processes", 1...Parsing.maxRanks)
        chunk = try count("chunked_prefill_size", 1...Parsing.maxTokens)
        pageSize = try count("page_size", 1...Parsing.maxTokens)
        guard let keys = CacheType.Keys(rawValue: try text("kv_cache_dtype")) else { throw refusal("kv_cache_dtype") }
        // Servers before this option do not have it.
        let fp4Index = "enable_deepseek_v4_fp4_indexer"
        guard let hasFP4Index = (info[fp4Index] ?? .bool(false)).bool else { throw refusal(fp4Index) }
        cache = CacheType(keys, hasFP4Index: hasFP4Index)
        drafts = try count("speculative_num_steps", 0...16)
        dtype = try text("dtype")
        kernels = try text("kernels")
    }

    /// The settings in one line.
    var summary: String {
        let parts = [
            notation, threadsPerRank == 1 ? "1 thread a rank" : "\(threadsPerRank) threads a rank",
            processes == 1 ? "1 process" : "\(processes) processes", "dtype \(dtype)", "kernels \(kernels)",
            "cache \(cache.rawValue)", "pages of \(pageSize)", "chunks of \(chunk)",
        ]
        return (parts + (drafts > 0 ? ["\(drafts) drafts"] : [])).joined(separator: ", ").printableLine
    }
}
