extension WeightIndex {
    /// Reads all files into memory, so that start-up and not the first request waits for the disk and for page faults.
    ///
    /// Useful only if memory can hold the weights beside everything else; the system drops what does not fit.
    ///
    /// - Parameter progress: called with a fraction of all bytes, at the end with 1.
    /// - Throws: when a file has become shorter since it was opened, or its disk fails.
    package func preload(progress: (Double) -> Void = { _ in }) throws(CheckpointError) {
        let total = files.reduce(0) { $0 + $1.mapping.count }
        var done = 0
        for file in files {
            for start in stride(from: 0, to: file.mapping.count, by: Self.preloadBytes) {
                let end = min(start + Self.preloadBytes, file.mapping.count)
                // The disk reads on while these pages are entered.
                file.mapping.fetch(end..<min(end + Self.preloadBytes, file.mapping.count))
                try file.mapping.load(start..<end, path: file.path)
                done += end - start
                progress(Double(done) / Double(total))
            }
        }
    }

    /// Read between two reports.
    private static let preloadBytes = 64 << 20
}
