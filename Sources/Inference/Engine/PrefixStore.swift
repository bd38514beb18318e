/// A prefix store keeps blocks of an engine's prefix cache outside of its memory, for example on disk, so that they
/// survive the engine.
///
/// The engine calls it under its lock, after every change of its scheduler. It must not wait, and must not call the
/// engine from within; it does so later, from threads of its own.
package protocol PrefixStore: Sendable {
    /// The number of tokens of a block, a power of two.
    var blockTokens: Int { get }
    /// Looks for the blocks of a prefix that the engine's cache lacks, and places them in the cache. It then calls
    /// `Scheduler.endRestoring`, within a bounded time even if the medium does not answer; more calls are ignored.
    ///
    /// - Returns: false if it has none, and will not call.
    func restore(_ lookup: PrefixLookup, for engine: Engine) -> Bool
    /// Keeps the whole blocks of a prefix that the engine's cache has computed, or some of them.
    func save(_ prefix: IdentifiedPrefix, from engine: Engine)
}

/// The state of a prefix store, for `/server_info` and `/metrics`. Counts are from the start of the server.
package struct PrefixStoreStatus: Sendable, Equatable {
    package var directory: String
    /// The largest number of bytes that files may have together.
    package var limitBytes: Int
    /// True if this server writes blocks; otherwise another one does, and this one only reads.
    package var isWriting = false
    /// The blocks of all models in the directory, and the bytes that they occupy.
    package var blocks = 0
    package var bytes = 0
    package var writtenBlocks: UInt64 = 0
    package var writtenBytes: UInt64 = 0
    package var readBlocks: UInt64 = 0
    package var readBytes: UInt64 = 0
    /// The number of blocks removed because the limit was reached.
    package var evictedBlocks: UInt64 = 0
    /// The number of files that were torn, damaged or of another origin than their names say.
    package var damagedBlocks: UInt64 = 0
    /// The number of prefixes that were not written because others were being written, or because writing failed.
    package var droppedPrefixes: UInt64 = 0
    /// The number of attempts to write a block that failed, for example because the disk was full.
    package var failedWrites: UInt64 = 0
    /// The number of prompt tokens whose keys were restored.
    package var restoredTokens: UInt64 = 0

    package init(directory: String, limitBytes: Int) {
        self.directory = directory
        self.limitBytes = limitBytes
    }
}
