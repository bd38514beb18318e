import Inference
import Synchronization
import TestSupport
import Testing
import braid

@Suite(.timeLimit(.minutes(15))) struct ServingRunTests {
    private func traffic(_ requests: Int) -> ServingTraffic {
        var traffic = ServingTraffic()
        traffic.requests = requests
        traffic.inputLength = 9
        return traffic
    }

    @Test func `a run keeps the order of its requests`() async {
        let traffic = traffic(20)
        let (outcomes, _) = await traffic.run(concurrency: 7) { arrival in
            var outcome = ServingOutcome(inputTokens: arrival.inputTokens)
            outcome.finish(total: arrival.number, at: 1)
            return outcome
        }
        #expect(outcomes.map(\.inputTokens) == traffic.arrivals.map(\.inputTokens))
        #expect(outcomes.map(\.outputTokens) == Array(0..<20))
    }

    @Test func `no more requests run at once than were asked for`() async {
        let running = Mutex((now: 0, most: 0))
        _ = await traffic(20).run(concurrency: 3) { arrival in
            running.withLock { $0 = ($0.now + 1, max($0.most, $0.now + 1)) }
            // The first ones wait for each other, for a minute at most.
            for _ in 0..<12_000 where arrival.number < 3 && running.withLock({ $0.most < 3 }) {
                try? await Task.sleep(for: .milliseconds(5))
            }
            try? await Task.sleep(for: .milliseconds(5))
            running.withLock { $0.now -= 1 }
            return ServingOutcome(inputTokens: arrival.inputTokens)
        }
        #expect(running.withLock { $0.most } == 3)
    }

    private let engine = ToyEngine { _ in [5, 6, 7] }

    private var request: GenerationRequest {
        var request = GenerationRequest(prompt: [1, 2, 3, 4])
        request.sampling.maxNewTokens = 3
        return request
    }

    @Test func `an engine's tokens are counted and timed`() async {
        let outcome = await engine.outcome(of: request)
        #expect(outcome.error == nil)
        #expect(outcome.inputTokens == 4)
        #expect(outcome.outputTokens == 3)
        #expect(outcome.gaps.count == 2)
        #expect(outcome.firstToken! <= outcome.latency)
    }

    @Test func `a request an engine refuses is a failure with its words`() async {
        engine.capacity = 0
        let outcome = await engine.outcome(of: request)
        #expect(outcome.error?.contains("requests are waiting") == true)
        #expect(outcome.outputTokens == 0)
    }
}
