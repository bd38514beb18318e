import Foundation
import Inference

/// A thread that calls a function when it is woken, and at regular intervals, until the function returns false.
final class Pacer: Sendable {
    private let bell: DispatchSemaphore

    /// - Parameters:
    ///   - milliseconds: the longest time between two calls.
    ///   - bell: wakes the thread, as `wake` does.
    init(
        _ name: String, every milliseconds: UInt64, bell: DispatchSemaphore, _ body: @escaping @Sendable () -> Bool
    ) {
        self.bell = bell
        Thread.detachNewThread { [bell] in
            ThreadName.current = name
            repeat { _ = bell.wait(timeout: .now() + .milliseconds(Int(milliseconds))) } while body()
        }
    }

    func wake() { bell.signal() }
}
