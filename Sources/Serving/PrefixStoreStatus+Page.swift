import Inference
import JSON

/// The state of a store of prefixes in `/server_info` and `/metrics`.
extension PrefixStoreStatus {
    var json: JSONValue {
        .fields([
            "directory": .string(directory), "mode": .string(isWriting ? "writing" : "read-only"),
            "size_bytes": .integer(limitBytes), "used_bytes": .integer(bytes), "blocks": .integer(blocks),
        ])
    }

    func write(to page: inout MetricsPage) {
        page.single("prefix_store_blocks", "gauge", "Stored blocks of prefixes.", Double(blocks))
        page.single("prefix_store_bytes", "gauge", "Bytes that stored blocks occupy.", Double(bytes))
        page.single("prefix_store_limit_bytes", "gauge", "The most that stored blocks may occupy.", Double(limitBytes))
        page.single(
            "prefix_store_writing", "gauge", "1 if this server writes blocks, 0 if it only reads them.",
            isWriting ? 1 : 0)
        page.family("prefix_store_blocks_total", "counter", "Blocks of prefixes, by what became of them.")
        let blocks: [(String, UInt64)] = [
            ("written", writtenBlocks), ("read", readBlocks), ("evicted", evictedBlocks), ("damaged", damagedBlocks),
        ]
        for (event, count) in blocks {
            page.sample("prefix_store_blocks_total", Double(count), labels: [("event", event)])
        }
        page.family("prefix_store_bytes_total", "counter", "Bytes of blocks of prefixes.")
        for (direction, bytes) in [("written", writtenBytes), ("read", readBytes)] {
            page.sample("prefix_store_bytes_total", Double(bytes), labels: [("direction", direction)])
        }
        page.single(
            "prefix_store_failed_writes_total", "counter", "Blocks that could not be written.", Double(failedWrites))
        page.single(
            "prefix_store_dropped_prefixes_total", "counter",
            "Prefixes that were not written because too many waited, or after a failed write.", Double(droppedPrefixes))
        page.single(
            "prefix_store_restored_tokens_total", "counter", "Prompt tokens whose keys were restored.",
            Double(restoredTokens))
    }
}
