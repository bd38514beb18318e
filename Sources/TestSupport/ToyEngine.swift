package import Grammar
package import Inference
import Synchronization

/// An engine whose answers can be worked out by hand, for tests of clients of an engine.
///
/// The tokens of an answer come from `answer`; after them, `endOfText` repeats as long as more tokens are wanted.
/// Log-probabilities are exact in binary: see `logProb(of:)`.
package final class ToyEngine: EngineClient {
    package let limits: EngineLimits
    private let endOfText: Int32
    /// Compiles the grammars of requests, so that invalid ones are refused as an engine refuses them; answers do not
    /// follow grammars.
    private let grammars: GrammarCache
    private let answer: @Sendable (GenerationRequest) -> [Int32]
    private let state: Mutex<State>

    private struct State {
        var received: [GenerationRequest] = []
        var running: Set<UInt64> = []
        var aborted: Set<UInt64> = []
        var finished: Set<UInt64> = []
        var status = EngineStatus()
        var isHolding = false
        var holdsAfter: Int?
        var capacity = Int.max
        var cachedTokens = 0
        var failure: String?
        var nextID: UInt64 = 1
        var streams: [UInt64: AsyncStream<GenerationEvent>.Continuation] = [:]
        var isStopped = false
        var statusReads = 0
        var timeline: StepTimeline?
    }

    /// Creates an engine.
    ///
    /// - Parameter answer: returns the tokens of the answer to a request.
    package init(
        contextLength: Int = 4096, vocabularySize: Int = 1024, maxTopLogProbs: Int = 20, endOfText: Int32 = 1,
        answer: @escaping @Sendable (GenerationRequest) -> [Int32]
    ) {
        limits = EngineLimits(
            contextLength: contextLength, vocabularySize: vocabularySize, maxRunningRequests: 4, maxQueuedRequests: 8,
            maxTopLogProbs: maxTopLogProbs)
        self.endOfText = endOfText
        grammars = GrammarCache(GrammarVocabulary(bytes: [], controlTokens: [:], size: vocabularySize))
        self.answer = answer
        var initial = State()
        initial.status.totalPages = 64
        initial.status.freePages = 64
        initial.status.pageSize = 64
        state = Mutex(initial)
    }

    /// Returns the log-probability of a token, at every position: -1/16 to -1, in sixteenths, by the token's last four
    /// bits.
    package static func logProb(of token: Int32) -> Float { -Float(token % 16 + 1) / 16 }

    /// Returns the scores of the token itself and of the following numbers, each one less likely by 1.
    package static func scores(of token: Int32, topCount: Int) -> TokenLogProbs {
        let top = (0..<Int32(topCount)).map { ScoredToken(token: token + $0, logProb: logProb(of: token) - Float($0)) }
        return TokenLogProbs(token: token, logProb: logProb(of: token), top: top)
    }

    // MARK: - Settings for a test

    /// True if running requests are held, so that they produce nothing.
    package var isHolding: Bool {
        get { state.withLock { $0.isHolding } }
        set { state.withLock { $0.isHolding = newValue } }
    }

    /// The number of tokens after which running requests are held; `nil` holds none.
    package var holdsAfter: Int? {
        get { state.withLock { $0.holdsAfter } }
        set { state.withLock { $0.holdsAfter = newValue } }
    }

    /// The number of requests that may run at once; further ones are refused as overload.
    package var capacity: Int {
        get { state.withLock { $0.capacity } }
        set { state.withLock { $0.capacity = newValue } }
    }

    /// The number of cached tokens that every request reports.
    package var cachedTokens: Int {
        get { state.withLock { $0.cachedTokens } }
        set { state.withLock { $0.cachedTokens = newValue } }
    }

    /// The number of pages that are reported as cached until they are flushed.
    package var cachedPages: Int {
        get { state.withLock { $0.status.cachedPages } }
        set { state.withLock { $0.status.cachedPages = newValue } }
    }

    /// Once set, running requests fail with this after the tokens they already have.
    package var requestFailure: String? {
        get { state.withLock { $0.failure } }
        set { state.withLock { $0.failure = newValue } }
    }

    /// Sets what `status` reports about the ranks.
    package func setRanks(_ ranks: [RankStatus], layout: String) {
        state.withLock { state in
            state.status.ranks = ranks
            state.status.layout = layout
        }
    }

    /// Sets what `status` reports about the engine's settings.
    package func setSettings(_ settings: EngineSettings) { state.withLock { $0.status.settings = settings } }

    /// Sets what `timeline` returns.
    package func setTimeline(_ timeline: StepTimeline) { state.withLock { $0.timeline = timeline } }

    /// Makes the engine fail permanently, as if a rank had failed.
    package func failForever(_ reason: String) {
        state.withLock { $0.status.failure = reason }
    }

    // MARK: - Observations for a test

    package var received: [GenerationRequest] { state.withLock { $0.received } }
    package var runningCount: Int { state.withLock { $0.running.count } }
    package var abortedCount: Int { state.withLock { $0.aborted.count } }
    package var finishedCount: Int { state.withLock { $0.finished.count } }

    /// The number of calls of `status`.
    package var statusReads: Int { state.withLock { $0.statusReads } }

    // MARK: - EngineClient

    package var refusal: EngineError? {
        state.withLock { state in
            if let failure = state.status.failure { return .failed(failure) }
            return state.status.isDraining ? .draining : nil
        }
    }

    package func status() -> EngineStatus {
        state.withLock { state in
            state.statusReads += 1
            var status = state.status
            status.running = state.running.count
            status.usedPages = state.running.count
            status.freePages = status.totalPages - status.cachedPages - status.usedPages
            return status
        }
    }

    package func timeline() -> StepTimeline? { state.withLock { $0.timeline } }

    package func flushCache() async throws(EngineError) -> Int {
        if case .failed(let reason)? = refusal { throw .failed(reason) }
        return state.withLock { state in
            defer { state.status.cachedPages = 0 }
            return state.status.cachedPages
        }
    }

    package func stop(_ reason: String) {
        let streams = state.withLock { state in
            state.status.isDraining = true
            state.isStopped = true
            state.aborted.formUnion(state.running)
            state.running = []
            defer { state.streams = [:] }
            return state.streams.values.map { $0 }
        }
        for stream in streams {
            stream.yield(.failed(reason))
            stream.finish()
        }
    }

    package func drain() async {
        state.withLock { $0.status.isDraining = true }
        while runningCount > 0 {
            do { try await Task.sleep(for: .milliseconds(2)) } catch { return }
        }
    }

    package func prepare(_ grammar: GrammarSource) throws(EngineError) { try grammar.compile(with: grammars) }

    package func cachedTokens(of id: UInt64) -> Int? { cachedTokens }

    package func submit(_ request: GenerationRequest) throws(EngineError) -> Generation {
        guard !request.prompt.isEmpty else {
            throw .invalid(parameter: "prompt", message: "a prompt has at least one token")
        }
        try request.checkGrammar(with: grammars)
        let id = try accept(request)
        let (events, continuation) = AsyncStream.makeStream(of: GenerationEvent.self)
        state.withLock { $0.streams[id] = continuation }
        let task = Task { await self.produce(id: id, request: request, into: continuation) }
        continuation.onTermination = { reason in
            guard case .cancelled = reason else { return }
            task.cancel()
            self.state.withLock { state in
                if state.running.remove(id) != nil { state.aborted.insert(id) }
            }
        }
        return Generation(id: id, events: events)
    }

    package func abort(_ id: UInt64) {
        let (stream, usage) = state.withLock { state in
            if state.running.remove(id) != nil { state.aborted.insert(id) }
            return (
                state.streams.removeValue(forKey: id),
                Usage(promptTokens: 0, completionTokens: 0, cachedTokens: state.cachedTokens)
            )
        }
        stream?.yield(.finished(.abort, usage))
        stream?.finish()
    }

    private func accept(_ request: GenerationRequest) throws(EngineError) -> UInt64 {
        try state.withLock { (state) throws(EngineError) in
            if let failure = state.status.failure { throw .failed(failure) }
            if state.status.isDraining { throw .draining }
            guard state.running.count < state.capacity else {
                throw .overloaded(queued: state.running.count, retryAfterSeconds: 3)
            }
            let id = state.nextID
            state.nextID += 1
            state.received.append(request)
            state.running.insert(id)
            state.status.promptTokens += UInt64(request.prompt.count)
            state.status.cacheLookupTokens += UInt64(request.prompt.count)
            state.status.cacheHitTokens += UInt64(state.cachedTokens)
            return id
        }
    }

    private func produce(
        id: UInt64, request: GenerationRequest, into continuation: AsyncStream<GenerationEvent>.Continuation
    ) async {
        let space = limits.contextLength - request.prompt.count
        let limit = min(request.sampling.maxNewTokens ?? space, space)
        let script = answer(request)
        var count = 0
        var reason = FinishReason.length
        guard await isReleased() else { return }
        if let start = request.logProbs?.promptStart {
            continuation.yield(.promptLogProbs(prompt(request, from: start)))
        }
        while count < limit {
            guard await isReleased(after: count) else { return }
            if let failure = requestFailure {
                return end(id, continuation, .failed(failure))
            }
            let token = count < script.count ? script[count] : endOfText
            count += 1
            let options = request.logProbs
            continuation.yield(
                .token(options.map { Self.scores(of: token, topCount: $0.topCount) } ?? TokenLogProbs(token: token)))
            state.withLock { $0.status.generatedTokens += 1 }
            if request.sampling.stopTokens.contains(token), count > request.sampling.minNewTokens {
                reason = .stop(token: token)
                break
            }
        }
        let usage = Usage(
            promptTokens: request.prompt.count, completionTokens: count,
            cachedTokens: state.withLock { $0.cachedTokens })
        end(id, continuation, .finished(reason, usage))
    }

    /// Waits while the test holds the engine.
    ///
    /// - Returns: false if the request was aborted meanwhile.
    private func isReleased(after count: Int = 0) async -> Bool {
        while isHolding || count == holdsAfter, !state.withLock({ $0.isStopped }) {
            do { try await Task.sleep(for: .milliseconds(1)) } catch { return false }
        }
        return !Task.isCancelled && !state.withLock { $0.isStopped }
    }

    private func prompt(_ request: GenerationRequest, from start: Int) -> [TokenLogProbs] {
        request.prompt.indices.dropFirst(start).map { index in
            index == 0
                ? TokenLogProbs(token: request.prompt[0])
                : Self.scores(of: request.prompt[index], topCount: request.logProbs?.topCount ?? 0)
        }
    }

    private func end(
        _ id: UInt64, _ continuation: AsyncStream<GenerationEvent>.Continuation, _ event: GenerationEvent
    ) {
        state.withLock { state in
            if state.running.remove(id) != nil { state.finished.insert(id) }
            state.streams[id] = nil
        }
        continuation.yield(event)
        continuation.finish()
    }
}
