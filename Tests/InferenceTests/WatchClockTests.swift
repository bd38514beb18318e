import Foundation
import Inference
import KVCache
import Modeling
import Models
import Parallelism
import TestSupport
import Testing

@Suite struct `The watchdog's clock` {
    private static let second: UInt64 = 1_000_000_000

    @Test func `does not count the time in which the process stood still`() {
        var clock = WatchClock(interval: Self.second / 2)
        var now = 100 * Self.second
        for _ in 0..<10 {
            now += Self.second / 2
            clock.look(at: now)
        }
        #expect(clock.resumed == 0, "looks came in time")
        now += 4 * Self.second
        clock.look(at: now)
        #expect(clock.resumed == now)
        let resumed = now
        for _ in 0..<10 {
            now += Self.second / 2
            clock.look(at: now)
        }
        #expect(clock.resumed == resumed, "a rank that hangs is noticed after all")
    }

    @Test func `does not take a late check for a pause`() {
        var clock = WatchClock(interval: Self.second)
        clock.look(at: 10 * Self.second)
        clock.look(at: 12 * Self.second)
        #expect(clock.resumed == 0)
    }

    @Test func `does not count the time in which there is nothing to watch`() {
        var clock = WatchClock(interval: Self.second)
        clock.look(at: 10 * Self.second)
        clock.rest()
        clock.look(at: 1000 * Self.second)
        #expect(clock.resumed == 0)
    }
}

/// Ranks that are started repeatedly must leak neither threads nor memory.
@Suite(.timeLimit(.minutes(15))) struct `Pools of ranks` {
    private struct Left {
        weak var pool: RankPool?
        weak var cache: CacheStore?
        weak var alarm: Alarm?
    }

    private static func left(by parallel: ParallelConfiguration, _ model: any Model) throws -> Left {
        var configuration = EngineConfiguration()
        configuration.pageSize = 4
        configuration.parallel = parallel
        let pool = RankPool(model, configuration)
        let chunk = StepPlan.Chunk(request: 1, tokens: [1, 2, 3, 4, 5], start: 0, pages: [3, 2])
        for step in 0..<2 { _ = try? pool.run(StepPlan(number: step, chunks: [chunk])) }
        pool.stop()
        return Left(pool: pool, cache: pool.cache, alarm: pool.world.alarm)
    }

    @Test(arguments: [false, true]) func `leave nothing behind when they end`(fails: Bool) throws {
        let sound = try Golden("v32").directory.load()
        for place in Place.all {
            let model: any Model = fails ? FailingModel(sound, rank: place.rank, .decode, .failure) : sound
            let left = try Self.left(by: place.parallel, model)
            // A thread that has ended releases its resources shortly after the pool has noticed its end.
            for _ in 0..<6000 where left.pool != nil || left.cache != nil || left.alarm != nil {
                Thread.sleep(forTimeInterval: 0.01)
            }
            #expect(left.pool == nil && left.cache == nil && left.alarm == nil, "\(place.parallel)")
        }
    }
}
