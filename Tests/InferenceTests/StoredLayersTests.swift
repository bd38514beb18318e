import Dispatch
import Inference
import KVCache
import Parallelism
import Tensors
import Testing

@Suite struct `Stored layers` {
    /// Four layers, and that of the next-token block.
    private static let format = CacheFormat(
        layers: Array(repeating: [KeySet("keys", [KeySet.Lane(.f32, width: 1)])], count: 5), pageSize: 16)

    private static func stored(
        _ configuration: ParallelConfiguration, ranks: Range<Int>, _ bell: DispatchSemaphore = .init(value: 0)
    ) -> StoredLayers {
        StoredLayers(ranks: ranks, configuration, layers: 4, format, bell)
    }

    @Test func `are those of the slowest rank of a data group`() {
        let stored = Self.stored(ParallelConfiguration(data: 2, tensor: 2), ranks: 0..<4)
        for watermark in stored.watermarks { watermark.begin(step: 7) }
        for (rank, layers) in [3, 2, 1, 5].enumerated() {
            for layer in 0..<layers { stored.watermarks[rank].pass(layer: layer) }
        }
        #expect(stored.count(step: 7, group: 0) == 2 && stored.count(step: 7, group: 1) == 1)
    }

    @Test func `are none before a step, and all after it`() {
        let stored = Self.stored(ParallelConfiguration(), ranks: 0..<1)
        stored.watermarks[0].begin(step: 3)
        stored.watermarks[0].pass(layer: 0)
        #expect(stored.count(step: 2, group: 0) >= 5)
        #expect(stored.count(step: 3, group: 0) == 1)
        #expect(stored.count(step: 4, group: 0) == 0)
        stored.watermarks[0].begin(step: 4)
        #expect(stored.count(step: 3, group: 0) >= 5 && stored.count(step: 4, group: 0) == 0)
    }

    @Test func `of several stages go on where the stage before ends`() {
        let stored = Self.stored(ParallelConfiguration(pipeline: 2), ranks: 0..<2)
        for watermark in stored.watermarks { watermark.begin(step: 1) }
        stored.watermarks[0].pass(layer: 0)
        #expect(stored.count(step: 1, group: 0) == 1)
        stored.watermarks[0].pass(layer: 1)
        #expect(stored.count(step: 1, group: 0) == 2)
        // The first stage computes the next step meanwhile.
        stored.watermarks[0].begin(step: 2)
        stored.watermarks[1].pass(layer: 2)
        #expect(stored.count(step: 1, group: 0) == 3 && stored.count(step: 2, group: 0) == 0)
        stored.watermarks[1].pass(layer: 3)
        stored.watermarks[1].pass(layer: 4)
        #expect(stored.count(step: 1, group: 0) == 5)
    }

    @Test func `of a process are bounded by its own stages and groups only`() {
        let ofLast = Self.stored(ParallelConfiguration(pipeline: 2), ranks: 1..<2)
        ofLast.watermarks[0].begin(step: 1)
        #expect(ofLast.count(step: 1, group: 0) == 2)
        let ofFirst = Self.stored(ParallelConfiguration(data: 2, pipeline: 2), ranks: 0..<2)
        for watermark in ofFirst.watermarks { watermark.begin(step: 1) }
        ofFirst.watermarks[1].pass(layer: 0)
        #expect(ofFirst.count(step: 1, group: 0) == 0 && ofFirst.count(step: 1, group: 1) == 1)
    }

    @Test func `give one alert to whoever waits`() {
        let bell = DispatchSemaphore(value: 0)
        let stored = Self.stored(ParallelConfiguration(), ranks: 0..<1, bell)
        stored.watermarks[0].begin(step: 1)
        stored.watermarks[0].pass(layer: 0)
        #expect(!stored.takeNews() && bell.wait(timeout: .now()) == .timedOut)
        stored.awaitMore()
        stored.watermarks[0].pass(layer: 1)
        stored.watermarks[0].pass(layer: 2)
        #expect(bell.wait(timeout: .now()) == .success && bell.wait(timeout: .now()) == .timedOut)
        #expect(stored.takeNews() && !stored.takeNews())
    }

    /// Ten layers are five groups of two: nobody is woken for a part of a group.
    @Test func `give alerts at the ends of groups of layers`() {
        let format = CacheFormat(
            layers: Array(repeating: [KeySet("keys", [KeySet.Lane(.f32, width: 1)])], count: 10), pageSize: 16)
        let stored = StoredLayers(
            ranks: 0..<1, ParallelConfiguration(), layers: 10, format, DispatchSemaphore(value: 0))
        stored.watermarks[0].begin(step: 0)
        let alerts = (0..<10).filter { layer in
            stored.awaitMore()
            stored.watermarks[0].pass(layer: layer)
            return stored.takeNews()
        }
        #expect(alerts == [1, 3, 5, 7, 9])
    }
}
