import Foundation
import Serving
import Synchronization
import Testing

/// The queue by which servers write their log.
@Suite(.timeLimit(.minutes(15))) struct `A queue of lines` {
    /// A reader of lines that takes none until it is opened. It gives up waiting, since a time limit ends no thread that waits.
    private final class Reader: Sendable {
        private let gate = DispatchSemaphore(value: 0)
        private let isOpen = Mutex(false)
        let heard = Mutex<[String]>([])

        func take(_ line: Data) {
            if !isOpen.withLock({ $0 }), gate.wait(timeout: .now() + 30) == .success { gate.signal() }
            heard.withLock { $0.append(String(decoding: line, as: UTF8.self)) }
        }

        func open() {
            isOpen.withLock { $0 = true }
            gate.signal()
        }
    }

    private static func queue(_ reader: Reader, maxBytes: Int) -> LineQueue {
        LineQueue(maxBytes: maxBytes, dropped: { Data("dropped \($0)".utf8) }, write: reader.take)
    }

    @Test func `takes lines while nobody reads, and counts those that do not fit`() {
        let reader = Reader()
        let queue = Self.queue(reader, maxBytes: 20)
        for number in 0..<5 { queue.write(Data("line 0000\(number)".utf8)) }
        #expect(!queue.flush(within: 0), "nothing is written yet")
        #expect(reader.heard.withLock { $0.isEmpty })
        reader.open()
        #expect(queue.flush(within: 300))
        let heard = reader.heard.withLock { $0 }
        #expect(heard.starts(with: ["line 00000", "line 00001"]))
        // More than one line may say so.
        let dropped = heard.dropFirst(2).map { $0.hasPrefix("dropped ") ? Int($0.dropFirst(8)) : nil }
        #expect(!dropped.contains(nil) && dropped.reduce(0) { $0 + ($1 ?? 0) } == 3, "\(heard)")
    }

    @Test func `writes all lines in their order, and goes on after it has dropped some`() {
        let reader = Reader()
        let queue = Self.queue(reader, maxBytes: 1 << 20)
        reader.open()
        let lines = (0..<1000).map { "\($0)" }
        for line in lines { queue.write(Data(line.utf8)) }
        #expect(queue.flush(within: 300))
        queue.write(Data(count: 2 << 20))
        #expect(queue.flush(within: 300))
        queue.write(Data("last".utf8))
        #expect(queue.flush(within: 300))
        #expect(reader.heard.withLock { $0 } == lines + ["dropped 1", "last"])
    }
}
