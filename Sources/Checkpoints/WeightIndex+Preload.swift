extension WeightIndex {
    /// Reads all files into memory, so that the start waits for the disk and for page faults, not the first request.
    ///
    /// It helps only if memory can hold the weights beside everything else; the system drops what does not fit.
    ///
    /// - Parameter progress: is called with the fraction of all bytes that were read; the last call has 1.
    /// - Throws: when a file has become shorter since it was opened, or its disk fails.
    package func preload(progress: (Double) -> Void = { _ in }) throws(CheckpointError) {
        let total = files.reduce(0) { $0 + $1.mapping.count }
        var done = 0
        for file in files {
            for start in stride(from: 0, to: file.mapping.count, by: Self.preloadBytes) {
                let end = min(start + Self.preloadBytes, file.mapping.count)
                // The disk continues to read while these pages are mapped.
                file.mapping.fetch(end..<min(end + Self.preloadBytes, file.mapping.count))
                try file.mapping.load(start..<end, path: file.path)
                done += end - start
                progress(Double(done) / Double(total))
            }
        }
    }

    /// This many bytes are read between two reports.
    private static let preloadBytes = 64 << 20
}
