import Disaggregation
import Inference
import KVCache
import Parallelism
import Tensors
import Testing

/// Tests of time in both ends of a session.
@Suite struct `A session` {
    private static let placement = CachePlacement(
        CacheFormat(layers: [[KeySet("keys", [KeySet.Lane(.f32, width: 4)])]], pageSize: 4), ParallelConfiguration(),
        processes: 1, stages: [0], isSharded: false)

    private static func scheduler() -> Scheduler {
        Scheduler(configuration: SchedulerConfiguration(totalPages: 8, contextLength: 16, vocabularySize: 30))
    }

    @Test func `ends when the other server is silent, and not when this one stood still`() {
        var (scheduler, other) = (Self.scheduler(), Self.scheduler())
        var sending = PrefillSession(
            7, from: Self.placement, to: Self.placement, layers: 0..<1, firstRequest: 1 << 32, at: 5)
        var receiving = DecodeSession(7, from: Self.placement, to: Self.placement, layers: 0..<1, at: 5)
        let timing = TransferTiming()
        var now: UInt64 = 5
        func look(after time: UInt64) {
            now += time
            sending.tick(at: now, &scheduler)
            _ = receiving.tick(at: now, &other)
        }
        func run(for time: UInt64) {
            for _ in 0..<time / (timing.beatInterval / 4) { look(after: timing.beatInterval / 4) }
        }
        run(for: timing.peerTimeout / 2)
        #expect(sending.failure == nil && receiving.failure == nil)
        // Between two looks at the clock a minute has passed: this process stood still.
        look(after: 60_000)
        #expect(sending.failure == nil && receiving.failure == nil)
        // After that the other one has all its time again, and no more.
        run(for: timing.peerTimeout - timing.beatInterval)
        #expect(sending.failure == nil && receiving.failure == nil)
        run(for: 2 * timing.beatInterval)
        #expect(sending.failure?.contains("silent") ?? false)
        #expect(receiving.failure?.contains("silent") ?? false)
    }

    /// All frames share a connection: those of one pair of processes show that it works.
    @Test func `ends when no process sends frames, and not while this one reads none`() {
        let placement = CellServer.placement(
            CellServer.Division(parallel: ParallelConfiguration(pipeline: 2), processes: 2), window: 0, pageSize: 4)
        var (scheduler, other) = (Self.scheduler(), Self.scheduler())
        var sending = PrefillSession(7, from: placement, to: placement, layers: 0..<2, firstRequest: 1 << 32, at: 5)
        var receiving = DecodeSession(7, from: placement, to: placement, layers: 0..<2, at: 5)
        let timing = TransferTiming()
        var now: UInt64 = 5
        // All messages arrive, and frames from one process to one other, or none.
        func run(for time: UInt64, frames: Bool, reads: Bool = true) {
            for _ in 0..<time / (timing.beatInterval / 4) {
                now += timing.beatInterval / 4
                sending.tick(at: now, &scheduler)
                for message in sending.takeMessages() { _ = receiving.receive(message: message, at: now, &other) }
                if frames {
                    for beat in sending.beats(at: now) where beat.sender == 0 && beat.receiver == 1 {
                        _ = receiving.receive(beat, in: 1, at: now, &other) { _, _ in true }
                    }
                }
                if !reads { receiving.framesAreNotRead(at: now) }
                _ = receiving.tick(at: now, &other)
                for message in receiving.takeMessages() { sending.receive(message: message, at: now, &scheduler) }
            }
        }
        run(for: 2 * timing.peerTimeout, frames: true)
        #expect(sending.failure == nil && receiving.failure == nil)
        run(for: 2 * timing.peerTimeout, frames: false, reads: false)
        #expect(sending.failure == nil && receiving.failure == nil)
        // When frames are read again, the other one has all its time, and no more.
        run(for: timing.peerTimeout - timing.beatInterval, frames: false)
        #expect(sending.failure == nil && receiving.failure == nil)
        run(for: 2 * timing.beatInterval, frames: false)
        #expect(receiving.failure?.contains("no frames") ?? false)
    }
}
