import Inference
import Synchronization

/// The events of several generations as one sequence; each event comes with the index of its request.
///
/// Every generation is read by a task of its own. If its client disconnects, the task is cancelled and the generation
/// aborted. The number of buffered events is bounded by the tokens that the requests asked for.
struct TextGenerations: Sendable {
    typealias Element = (index: Int, event: TextEvent)

    let events: AsyncStream<Element>
    private let readers: [Task<Void, Never>]
    private let cancellation: Cancellation
    private let started: ContinuousClock.Instant
    private let forget: @Sendable () -> Void

    /// A flag that is set when the generations are cancelled.
    private final class Cancellation: Sendable {
        private let flag = Atomic(false)
        var isSet: Bool { flag.load(ordering: .relaxed) }
        func set() { flag.store(true, ordering: .relaxed) }
    }

    /// - Parameters:
    ///   - numbers: the number of each generation in `slot.running`, from which it is removed when it ends.
    ///   - waitingEvery: the time after which a `waiting` event follows, again and again; `nil` for none.
    init(
        _ submitted: [(TextRequest, Generation)], _ numbers: [Int], service: TextService, slot: ModelSlot,
        waitingEvery interval: Duration?
    ) {
        let (events, continuation) = AsyncStream.makeStream(of: Element.self)
        let start = ContinuousClock.now
        let (metrics, engine, running) = (slot.metrics, service.engine, slot.running)
        let clock = interval.map { interval in
            Task { while (try? await Task.sleep(for: interval)) != nil { continuation.yield((0, .waiting)) } }
        }
        let unfinished = Countdown(submitted.count) {
            clock?.cancel()
            continuation.finish()
        }
        let readers = submitted.enumerated().map { index, submission in
            let (request, generation) = submission
            let stopTokens = request.sampling.stopTokens.union(request.ignoresEndOfText ? [] : service.endOfText)
            let assembler = TextAssembler(request, stopTokens: stopTokens, tokenizer: service.tokenizer)
            let number = numbers[index]
            running.start(number) { engine.abort(generation.id) }
            return Task {
                defer { running.remove([number]) }
                await Self.read(generation, assembler, GenerationTimer(start: start, metrics: metrics), engine) {
                    // Once a client knows that its request has ended, it may send another one of the same id.
                    if $0.isLast { running.remove([number]) }
                    continuation.yield((index, $0))
                }
                unfinished.countOne()
            }
        }
        continuation.onTermination = { reason in
            clock?.cancel()
            if case .cancelled = reason { for reader in readers { reader.cancel() } }
        }
        self.events = events
        self.readers = readers
        forget = { running.remove(numbers) }
        cancellation = Cancellation()
        started = start
    }

    /// Aborts the generations that still run and ends the sequence.
    func cancel() {
        cancellation.set()
        forget()
        for reader in readers { reader.cancel() }
    }

    /// True if `cancel` was called.
    var isCancelled: Bool { cancellation.isSet }

    /// The time since the requests were submitted.
    var elapsed: Duration { started.duration(to: .now) }

    /// Reads one generation to its end. Returning early drops the generation, which aborts it in the engine.
    private static func read(
        _ generation: Generation, _ assembler: TextAssembler, _ timer: GenerationTimer, _ engine: any EngineClient,
        yield: (TextEvent) -> Void
    ) async {
        var (assembler, timer) = (assembler, timer)
        var hasStarted = false
        for await event in generation.events {
            timer.observe(event)
            if case .token = event, !hasStarted {
                hasStarted = true
                if let count = engine.cachedTokens(of: generation.id) { yield(.started(cachedTokens: count)) }
            }
            for event in assembler.feed(event) {
                if case .finished(var finish) = event, finish.cachedTokens == nil {
                    // The engine does not know stop strings; it reports the usage when it aborts the request.
                    let usage = await Self.end(generation, engine)
                    if let usage { timer.observeLengths(usage) }
                    finish.cachedTokens = usage?.cachedTokens
                    finish.speculation = usage?.speculation
                    yield(.finished(finish))
                } else {
                    yield(event)
                }
            }
            if assembler.isFinished { break }
        }
        timer.end(wasAborted: !assembler.isFinished)
    }
}

extension TextGenerations {
    /// Ends a generation whose answer is complete, and returns its usage.
    private static func end(_ generation: Generation, _ engine: any EngineClient) async -> Usage? {
        engine.abort(generation.id)
        for await event in generation.events {
            if case .finished(_, let usage) = event { return usage }
        }
        return nil
    }
}

extension TextEvent {
    /// True for the events with which a generation ends.
    fileprivate var isLast: Bool {
        switch self {
        case .finished, .failed: true
        case .started, .promptScores, .token, .waiting: false
        }
    }
}

/// Measures the latencies of one generation for the metrics.
private struct GenerationTimer {
    let start: ContinuousClock.Instant
    let metrics: ServerMetrics
    private var lastToken: ContinuousClock.Instant?

    init(start: ContinuousClock.Instant, metrics: ServerMetrics) {
        self.start = start
        self.metrics = metrics
    }

    mutating func observe(_ event: GenerationEvent) {
        switch event {
        case .token:
            let now = ContinuousClock.now
            if let lastToken {
                metrics.observeNextToken(after: lastToken.duration(to: now))
            } else {
                metrics.observeFirstToken(after: start.duration(to: now))
            }
            lastToken = now
        case .failed: metrics.countFailed()
        case .finished(.abort, _): metrics.countAborted()
        case .finished(_, let usage): observeLengths(usage)
        case .promptLogProbs: break
        }
    }

    func observeLengths(_ usage: Usage) { metrics.observeLengths(usage) }

    func end(wasAborted: Bool) {
        if wasAborted { metrics.countAborted() } else { metrics.observeRequest(of: start.duration(to: .now)) }
    }
}

/// Runs an action once, after the last of several tasks.
private final class Countdown: Sendable {
    private let left: Mutex<Int>
    private let action: @Sendable () -> Void

    init(_ count: Int, action: @escaping @Sendable () -> Void) {
        left = Mutex(count)
        self.action = action
        if count == 0 { action() }
    }

    func countOne() {
        let isLast = left.withLock { left in
            left -= 1
            return left == 0
        }
        if isLast { action() }
    }
}
