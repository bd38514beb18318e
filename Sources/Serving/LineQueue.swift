package import Foundation
import Inference
import Synchronization

/// Writes lines from a thread of its own, so that nobody who has a line waits until it is written: a pipe that is not read
/// takes no more after a while, for ever.
///
/// Lines that do not fit the queue are dropped. A line in their place says how many they were. A queue and its thread last
/// as long as the process.
package final class LineQueue: Sendable {
    private struct State {
        var lines: [Data] = []
        /// The bytes of the lines that are not written.
        var bytes = 0
        /// The number of lines that were dropped since the last line that said so.
        var dropped = 0
    }

    private let state = Mutex(State())
    private let maxBytes: Int
    /// It has one signal for each time that something has come into the empty queue.
    private let arrival = DispatchSemaphore(value: 0)
    /// It has a member for each line, and for what is to be said of dropped ones, that is not written.
    private let unwritten = DispatchGroup()

    /// - Parameters:
    ///   - maxBytes: the bytes of lines that may wait.
    ///   - dropped: returns the line that says how many lines were dropped.
    ///   - write: writes a line, and may wait for as long as that takes.
    package init(
        maxBytes: Int, dropped: @escaping @Sendable (Int) -> Data, write: @escaping @Sendable (Data) -> Void
    ) {
        self.maxBytes = maxBytes
        Thread.detachNewThread { [self] in
            ThreadName.current = "braid log"
            while true {
                arrival.wait()
                while let (lines, count) = takeAll() {
                    for line in lines {
                        write(line)
                        state.withLock { $0.bytes -= line.count }
                        unwritten.leave()
                    }
                    guard count > 0 else { continue }
                    write(dropped(count))
                    unwritten.leave()
                }
            }
        }
    }

    /// Adds a line, or drops it.
    package func write(_ line: Data) {
        let isFirst = state.withLock { state in
            let wasEmpty = state.lines.isEmpty && state.dropped == 0
            if state.bytes + line.count <= maxBytes {
                unwritten.enter()
                state.lines.append(line)
                state.bytes += line.count
            } else {
                if state.dropped == 0 { unwritten.enter() }
                state.dropped += 1
            }
            return wasEmpty
        }
        if isFirst { arrival.signal() }
    }

    /// Waits until all lines are written, but not longer than a time.
    ///
    /// - Returns: whether they are.
    @discardableResult
    package func flush(within seconds: Double) -> Bool { unwritten.wait(timeout: .now() + seconds) == .success }

    /// Removes what waits: the lines, and the number of those that were dropped after them. `nil` if there is nothing.
    private func takeAll() -> (lines: [Data], dropped: Int)? {
        state.withLock { state in
            guard !state.lines.isEmpty || state.dropped > 0 else { return nil }
            defer { (state.lines, state.dropped) = ([], 0) }
            return (state.lines, state.dropped)
        }
    }
}
