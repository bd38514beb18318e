import KVCache

/// Decides what the ranks compute next. A pure state machine: requests and results go in, plans and events come
/// out; it has no threads, no clock, no random numbers and no model.
///
/// Order of service is by *precedence*: larger priority first, then earlier arrival. From it follows the rest.
/// - Requests are admitted in that order, and one that does not fit yet holds back those behind it.
/// - A step has one row for every decoding request, then prompt chunks in that order while rows are left. Where several
///   steps are in flight at once, the decoding requests are spread over them and take turns.
/// - Pages are taken as tokens need them. Where none is free, the running request last in order gives back all of
///   its own, if it comes after the one in need, and is put back into the queue at its old place; otherwise the one in
///   need waits. A request that arrives with a larger priority takes places and pages in the same way.
/// - Where tokens are guessed, a decoding request has the rows of its guesses too, in pages that nobody else needs.
/// - Pages that nobody uses any more stay known by their tokens until they are needed, and count as free. A request
///   begins behind what it finds of its own tokens.
///
/// So the first request in order always progresses, and a request that fits alone always finishes. Under a lasting
/// load of larger priorities a small one waits without bound: that is what priorities mean here.
///
/// A preempted request computes its prompt and its generated tokens again, as one prompt. Since a row's numbers do
/// not depend on its batch and a draw only on seed and position, it goes on as if nothing had happened.
package struct Scheduler: Sendable {
    package let configuration: SchedulerConfiguration
    /// What callers may ask for.
    package let limits: EngineLimits
    /// Set by `drain()`: no new requests.
    package private(set) var isDraining = false
    /// Set by `fail(_:)`: no requests, until `restart()`.
    package private(set) var failure: String?

    var pool: PagePool
    /// Pages of the key sets that have a window.
    var windowPool: PagePool
    var cache: PrefixCache
    var sequences: [UInt64: SequenceState] = [:]
    var queue = ServiceOrder()
    var running = ServiceOrder()
    /// The plans whose results are awaited, in the order in which they were handed out and will come back.
    package var inFlight: [StepPlan] = []
    var counters = Counters()
    var chunkSizer: ChunkSizer
    /// Requests of whose grammars the next plan tells the ranks that they have ended.
    var endedGrammars: [UInt64] = []
    private var arrivals: UInt64 = 0

    /// What happened to a request.
    package struct Event: Sendable, Equatable {
        package var request: UInt64
        package var event: GenerationEvent
        package init(request: UInt64, event: GenerationEvent) {
            self.request = request
            self.event = event
        }
    }

    /// Counted since the start.
    struct Counters: Sendable {
        var plans = 0
        var steps: UInt64 = 0
        var preemptions: UInt64 = 0
        var restarts: UInt64 = 0
        var promptTokens: UInt64 = 0
        var generatedTokens: UInt64 = 0
        var lookupTokens: UInt64 = 0
        var hitTokens: UInt64 = 0
        var speculation = SpeculationCount()
    }

    /// The configuration must be valid.
    package init(configuration: SchedulerConfiguration) {
        let problems = configuration.validate()
        precondition(problems.isEmpty, problems.map(\.description).joined(separator: "\n"))
        self.configuration = configuration
        limits = configuration.limits
        pool = PagePool(totalPages: configuration.totalPages, pageSize: configuration.pageSize)
        windowPool = PagePool(totalPages: configuration.windowPages, pageSize: configuration.pageSize)
        cache = PrefixCache(of: pool, window: configuration.window)
        chunkSizer = ChunkSizer(base: configuration.prefillChunk, unit: configuration.pageSize)
    }

    /// No request is left, and no step is in flight.
    package var isIdle: Bool { sequences.isEmpty && inFlight.isEmpty }
    /// A plan was handed out and its result has not come back.
    package var isStepInFlight: Bool { !inFlight.isEmpty }

    /// Takes a request into the queue, or says why it cannot be served. `id` must not be in use.
    ///
    /// What can never be served is refused before what cannot be served now.
    package mutating func submit(_ id: UInt64, _ request: GenerationRequest) throws(EngineError) {
        precondition(sequences[id] == nil, "request \(id) exists already")
        if let failure { throw .failed(failure) }
        if isDraining { throw .draining }
        try limits.check(request)
        let newTokenLimit = try newTokenLimit(of: request)
        guard queue.count < configuration.maxQueuedRequests else {
            throw .overloaded(queued: queue.count, retryAfterSeconds: retryAfterSeconds)
        }
        let precedence = Precedence(priority: request.priority, arrival: arrivals)
        arrivals += 1
        sequences[id] = SequenceState(
            id: id, precedence: precedence, request: request, newTokenLimit: newTokenLimit)
        queue.insert(id, at: precedence)
    }

    /// Ends a request now, wherever it is; nothing more is reported of it. The pages of a request in a step in flight
    /// are freed when that step ends, since ranks may still write them. Unknown ids are ignored: ends and aborts cross.
    package mutating func abort(_ id: UInt64) -> [Event] {
        guard let state = sequences[id], state.phase != .draining else { return [] }
        end(id)
        return [Event(request: id, event: .finished(.abort, state.usage))]
    }

    /// Refuses new requests from now on; those already taken are served.
    package mutating func drain() { isDraining = true }

    /// The ranks are lost, or the books wrong: ends every request with `message` and refuses new ones. Steps in flight are forgotten.
    package mutating func fail(_ message: String) -> [Event] {
        failure = failure ?? message
        let ended = sequences.values.filter { $0.phase != .draining }.sorted { $0.precedence < $1.precedence }
        // Begun anew and not given back page by page, which books that are wrong would not survive.
        pool = PagePool(totalPages: configuration.totalPages, pageSize: configuration.pageSize)
        windowPool = PagePool(totalPages: configuration.windowPages, pageSize: configuration.pageSize)
        cache = PrefixCache(of: pool, window: configuration.window)
        sequences.removeAll()
        // New ranks know of none.
        endedGrammars = []
        queue.removeAll()
        running.removeAll()
        inFlight = []
        return ended.map { Event(request: $0.id, event: .failed(message)) }
    }

    /// There are new ranks, after the old ones failed: requests are taken again. Every page is free by then.
    package mutating func restart() {
        precondition(failure != nil && isIdle, "only what has failed is started anew")
        failure = nil
        counters.restarts += 1
    }

    package var status: EngineStatus {
        var status = EngineStatus()
        status.running = running.count
        status.queued = queue.count
        status.freePages = pool.freePages
        status.cachedPages = cache.evictablePages
        status.usedPages = pool.usedPages - cache.evictablePages
        status.totalPages = pool.totalPages
        status.pageSize = pool.pageSize
        status.promptTokens = counters.promptTokens
        status.generatedTokens = counters.generatedTokens
        status.preemptions = counters.preemptions
        status.cacheLookupTokens = counters.lookupTokens
        status.cacheHitTokens = counters.hitTokens
        status.drafts = configuration.drafts
        status.speculation = counters.speculation
        status.steps = counters.steps
        status.restarts = counters.restarts
        status.isDraining = isDraining
        status.failure = failure
        return status
    }

    /// How many tokens of each request have their keys in the cache, with the data group that computed them.
    var computedTokens: [(group: Int, tokens: Int)] { sequences.values.map { ($0.group, $0.computed) } }

    /// Forgets a request as soon as no step writes its pages any more.
    mutating func end(_ id: UInt64) {
        guard let state = sequences[id], state.stepsInFlight > 0 else { return remove(id) }
        running.remove(at: state.precedence)
        sequences[id]!.phase = .draining
    }

    /// Forgets a request and frees its pages.
    mutating func remove(_ id: UInt64) {
        guard let state = sequences.removeValue(forKey: id) else { preconditionFailure("request \(id) does not exist") }
        switch state.phase {
        case .queued: queue.remove(at: state.precedence)
        case .running: running.remove(at: state.precedence)
        case .draining: break
        }
        if state.isGrammarAnnounced { endedGrammars.append(id) }
        releasePages(of: state)
    }

    /// Without a clock only an order of magnitude: a second for each time the running requests must be replaced.
    private var retryAfterSeconds: Int { min(60, 1 + queue.count / configuration.maxRunningRequests) }
}
