import Disaggregation
import Dispatch
import Foundation
import Inference
import KVCache
import Modeling
import Models
import Parallelism
import Synchronization
import Tensors
import TestSupport
import Testing

/// A model whose steps begin and end when a test says so: they end after all of their layers are computed.
private final class LateModel: ModelWrapper {
    let model: any Model
    let begin = DispatchSemaphore(value: 0)
    let end = DispatchSemaphore(value: 0)

    init(_ model: any Model) { self.model = model }

    func forward(_ step: Step, _ seat: Seat, into hidden: View) throws(GroupFailure) {
        begin.wait()
        begin.signal()
        try model.forward(step, seat, into: hidden)
        end.wait()
        end.signal()
    }
}

/// A link that records the frames with entries that are sent over it.
private final class FrameRecord: TransferLink {
    private let link: MemoryLink
    private let frames = Mutex([KVFrame]())

    init(_ link: MemoryLink) { self.link = link }

    /// Returns the positions of a layer that were sent, in their order.
    func positions(ofLayer layer: Int) -> [Int] {
        frames.withLock { $0.filter { $0.layers.contains(layer) }.flatMap { Array($0.positions) } }
    }

    func open(_ receive: @escaping @Sendable (TransferLinkEvent) -> Void) { link.open(receive) }
    func send(message: [UInt8]) { link.send(message: message) }
    var isWritable: Bool { link.isWritable }
    func setReadsFrames(_ reads: Bool) { link.setReadsFrames(reads) }
    func close(_ reason: String) { link.close(reason) }

    func send(frame: [UInt8]) {
        if let read = try? KVFrame(frame), read.kind == .keys { frames.withLock { $0.append(read) } }
        link.send(frame: frame)
    }
}

@Suite(.timeLimit(.minutes(15))) struct `A prefill server in the middle of a step` {
    /// Nothing but the ranks' alerts wakes the thread that makes frames: signs of life are hours apart. The only step of
    /// the prompt begins when the thread has looked for layers, or, on a slow machine, some time before.
    @Test(arguments: [ParallelConfiguration(), ParallelConfiguration(context: 2, pipeline: 3)])
    func `sends all layers but the last group`(layout: ParallelConfiguration) async throws {
        let request = GenerationRequest.mixed()[8]
        var policy = PrefillPolicy()
        policy.localPrefillTokens = 0
        let late = Mutex<LateModel?>(nil)
        let pair = try EnginePair(
            "v3", policy, beatInterval: 10_000_000,
            prefill: {
                $0.chunkedPrefillSize = -1
                $0.parallel = layout
            },
            decode: { _ in },
            wrapping: { model in
                let wrapped = LateModel(model)
                late.withLock { $0 = wrapped }
                return wrapped
            })
        let model = try #require(late.withLock { $0 })
        defer {
            model.begin.signal()
            model.end.signal()
            pair.stop()
        }
        let record = Mutex<FrameRecord?>(nil)
        try pair.connect(wrapping: { link in
            let wrapped = FrameRecord(link)
            record.withLock { $0 = wrapped }
            return wrapped
        })
        let frames = try #require(record.withLock { $0 })
        async let answers = pair.decode.answers(to: [request], .decode)
        try await Task.sleep(for: .milliseconds(100))
        model.begin.signal()
        let all = Array(request.prompt.indices)
        let isSent = await eventually { (0..<2).allSatisfy { frames.positions(ofLayer: $0) == all } }
        #expect(isSent)
        #expect(pair.prefill.status().steps == 0)
        #expect(frames.positions(ofLayer: 2) == [])
        model.end.signal()
        let expected = try await alone(request)
        #expect(try await answers == expected)
        for layer in 0..<3 { #expect(frames.positions(ofLayer: layer) == all) }
        #expect(pair.receiving.failure == nil)
        try await pair.settle()
    }

    private func alone(_ request: GenerationRequest) async throws -> [Answer] {
        var settings = EngineConfiguration()
        settings.pageSize = 128
        let engine = Engine(try Golden("v3").directory.load(), settings)
        defer { engine.stop() }
        return try await engine.answers(to: [request], .none)
    }
}
