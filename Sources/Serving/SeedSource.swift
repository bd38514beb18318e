import Inference
import Synchronization

/// Draws the seeds of requests that give none: from the system or, if the server was started with a seed, from that, so
/// that the same requests in the same order get the same answers.
final class SeedSource: Sendable {
    /// `nil` if seeds come from the system.
    private let generator: Mutex<SeededGenerator?>

    init(seed: UInt64?) {
        generator = Mutex(seed.map { SeededGenerator(seed: $0, stream: 0) })
    }

    func next() -> UInt64 {
        generator.withLock { $0?.next() } ?? UInt64.random(in: .min ... .max)
    }
}
