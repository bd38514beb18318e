import Dispatch
import Inference
import KVCache
import Synchronization

/// Has entries packed by the processes that keep them: those of the first process at once, those of others later, in
/// orders that nobody waits for under the engine's lock.
final class EntryPacking: Sendable {
    private let entries: [ProcessEntries]
    /// The bytes that were packed of each of `entries`.
    private let packed: Mutex<[[UInt8]?]>
    private let arrival = DispatchSemaphore(value: 0)

    init(_ entries: [ProcessEntries]) {
        self.entries = entries
        packed = Mutex(Array(repeating: nil, count: entries.count))
    }

    /// Orders the entries. It is called once, under the engine's lock, while the cache has them in these pages; the pages
    /// may be given up before they have arrived.
    func begin(in pages: CacheStore.PageList, _ caches: ServerCaches) {
        for (index, entries) in entries.enumerated() {
            caches.pack(entries.named(in: pages), in: entries.process) { [self] bytes in
                packed.withLock { $0[index] = bytes }
                arrival.signal()
            }
        }
    }

    /// Waits until all have arrived. It must not be called under the engine's lock.
    ///
    /// - Returns: the bytes of each of the entries, as `CacheStore.pack` has them; `nil` if the ranks of these caches have
    ///   ended, so that some may never arrive.
    func wait(for caches: ServerCaches) -> [[UInt8]]? {
        while true {
            let arrived = packed.withLock { packed in packed.contains(nil) ? nil : packed.compactMap(\.self) }
            if let arrived { return arrived }
            if caches.haveEnded { return nil }
            _ = arrival.wait(timeout: .now() + Self.interval)
        }
    }

    /// The seconds after which it is looked again whether the ranks have ended.
    private static let interval = 0.05
}
