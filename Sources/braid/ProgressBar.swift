import Foundation

/// A progress bar is a line on standard error; it prints nothing if standard error is not a terminal.
final class ProgressBar {
    private let title: String
    /// True if standard error is a terminal.
    let isWatched = isatty(STDERR_FILENO) == 1
    private var lastPercent = -1

    init(_ title: String) { self.title = title }

    /// Draws the bar.
    ///
    /// - Parameter fraction: The progress from 0 to 1.
    func update(_ fraction: Double) {
        let percent = Int(fraction * 100)
        guard isWatched, percent != lastPercent else { return }
        lastPercent = percent
        let filled = String(repeating: "█", count: percent * 30 / 100)
        let rest = String(repeating: "░", count: 30 - percent * 30 / 100)
        write("\r\(title) \(filled)\(rest) \(percent) %")
    }

    /// Removes the line; `update` draws it again.
    func finish() {
        if isWatched, lastPercent >= 0 { write("\r\u{1B}[K") }
        lastPercent = -1
    }

    private func write(_ text: String) { try? FileHandle.standardError.write(contentsOf: Data(text.utf8)) }
}
