import Foundation
import Inference

/// A thread that calls a function when it is woken, and at regular intervals, until the function returns false.
final class Pacer: Sendable {
    private let bell = DispatchSemaphore(value: 0)

    /// - Parameter milliseconds: the longest time between two calls.
    init(_ name: String, every milliseconds: UInt64, _ body: @escaping @Sendable () -> Bool) {
        Thread.detachNewThread { [bell] in
            ThreadName.current = name
            repeat { _ = bell.wait(timeout: .now() + .milliseconds(Int(milliseconds))) } while body()
        }
    }

    func wake() { bell.signal() }
}
