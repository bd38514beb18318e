/// How far `WeightIndex.preload` has come.
package struct LoadProgress: Sendable, Equatable {
    package let loadedBytes: Int
    /// The size of all files.
    package let totalBytes: Int
}

extension WeightIndex {
    /// Brings all files into memory before the first request needs them, so that start-up and not a client waits.
    ///
    /// Useful only if memory can hold the weights beside everything else; the kernel drops what does not fit.
    ///
    /// - Parameters:
    ///   - chunkBytes: how much is read between two reports.
    ///   - progress: called before the first chunk and after each, at the end with `loadedBytes == totalBytes`.
    /// - Throws: when a file has become shorter since it was opened, or cannot be read.
    package func preload(
        chunkBytes: Int = 64 << 20, progress: (LoadProgress) -> Void
    ) throws(CheckpointError) {
        precondition(chunkBytes > 0, "a chunk must have a size")
        let total = files.reduce(0) { $0 + $1.byteCount }
        var loaded = 0
        progress(LoadProgress(loadedBytes: 0, totalBytes: total))
        for file in files {
            file.adviseSequential()
            for start in stride(from: 0, to: file.byteCount, by: chunkBytes) {
                let end = min(start + chunkBytes, file.byteCount)
                file.adviseWillNeed(end..<min(end + chunkBytes, file.byteCount))
                try file.load(start..<end)
                loaded += end - start
                progress(LoadProgress(loadedBytes: loaded, totalBytes: total))
            }
        }
    }

    /// How much of all files is in memory now; nil where the system does not tell. See `SafeTensorsFile.residentBytes`.
    package var residentBytes: Int? {
        files.reduce(0) { sum, file in
            guard let sum, let bytes = file.residentBytes else { return nil }
            return sum + bytes
        }
    }
}
