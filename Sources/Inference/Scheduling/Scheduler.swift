import KVCache

/// The scheduler decides what the ranks compute next. It is a pure state machine: requests and results go in, plans and
/// events come out. It has no threads, no clock, no random numbers and no model.
///
/// Requests are served in the order of their *precedence*: larger priority first, then earlier arrival.
/// - Requests are admitted in that order; one that does not fit yet blocks those behind it.
/// - A step has one row for every decoding request, then prompt chunks in that order while rows are left. If several
///   steps are in flight, the decoding requests are distributed over them.
/// - Pages are allocated as tokens need them. If none is free, the running request with the lowest precedence is
///   preempted, provided it comes after the one in need: it loses all of its pages and is queued at its old precedence.
///   Otherwise the request in need waits. A new request with a larger priority preempts others in the same way.
/// - With speculative decoding, a decoding request also has rows for its draft tokens, in pages that no other request
///   needs.
/// - Pages without users stay in the prefix cache until they are needed, and count as free. A request starts after the
///   longest prefix it finds there.
///
/// So the first request in order always progresses, and a request that fits alone always finishes. Under a lasting load
/// of larger priorities, a request of smaller priority waits without bound.
///
/// A preempted request computes its prompt and its generated tokens again, as one prompt. As a row's values do not
/// depend on its batch, and a draw depends only on seed and position, its output is the same as without preemption.
package struct Scheduler: Sendable {
    package let configuration: SchedulerConfiguration
    /// The bounds of a request.
    package let limits: EngineLimits
    /// True if `drain()` was called, after which new requests are refused.
    package private(set) var isDraining = false
    /// The reason given to `fail(_:)`; requests are refused until `restart()`.
    package private(set) var failure: String?

    var pool: PagePool
    /// Pages of the key sets that have a window.
    var windowPool: PagePool
    /// The ranks that have the entries of window pages; `nil` where every rank can read all of them.
    var windowOwners: WindowOwners?
    var cache: PrefixCache
    var sequences: [UInt64: SequenceState] = [:]
    var queue = ServiceOrder()
    var running = ServiceOrder()
    /// The plans whose results are awaited, in the order in which they were submitted and their results return.
    package var inFlight: [StepPlan] = []
    var counters = Counters()
    var chunkSizer: ChunkSizer
    /// The requests in phase `awaitingPeer`.
    var awaitingPeer: Set<UInt64> = []
    /// The requests in phase `receiving` that do not have all of their pages yet.
    var reserving: Set<UInt64> = []
    /// The actions that `takeTransferActions` returns next.
    var transferActions: [TransferAction] = []
    /// The number of tokens of a block of the prefix store; `nil` without a store. See `Scheduler+Restoring.swift`.
    package var storedBlock: Int?
    /// The requests in phase `restoring`.
    var restoring: Set<UInt64> = []
    /// The lookups that `takePrefixLookups` returns next.
    var prefixLookups: [PrefixLookup] = []
    /// The prefixes that `takeStorablePrefixes` returns next.
    var storablePrefixes: [IdentifiedPrefix] = []
    /// Ended requests with a grammar; the next plan tells the ranks to release those grammars.
    var endedGrammars: [UInt64] = []
    private var arrivals: UInt64 = 0

    /// An event reports what happened to a request.
    package struct Event: Sendable, Equatable {
        package var request: UInt64
        package var event: GenerationEvent
        package init(request: UInt64, event: GenerationEvent) {
            self.request = request
            self.event = event
        }
    }

    /// These counters count from the start of the engine.
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

    /// Creates a scheduler without requests. The configuration must be valid.
    package init(configuration: SchedulerConfiguration) {
        let problems = configuration.validate()
        precondition(problems.isEmpty, problems.map(\.description).joined(separator: "\n"))
        self.configuration = configuration
        limits = configuration.limits
        pool = PagePool(totalPages: configuration.totalPages, pageSize: configuration.pageSize)
        windowPool = PagePool(totalPages: configuration.windowPages, pageSize: configuration.pageSize)
        cache = PrefixCache(of: pool, window: configuration.window)
        windowOwners = WindowOwners(configuration)
        chunkSizer = ChunkSizer(base: configuration.prefillChunk, unit: configuration.pageSize)
    }

    /// True if no request is left and no step is in flight.
    package var isIdle: Bool { sequences.isEmpty && inFlight.isEmpty }
    /// True if a plan was submitted whose result has not returned.
    package var isStepInFlight: Bool { !inFlight.isEmpty }

    /// Queues a request, or throws if it cannot be served. `id` must not be in use.
    ///
    /// Faults of the request are reported before a full queue.
    package mutating func submit(_ id: UInt64, _ request: GenerationRequest) throws(EngineError) {
        precondition(sequences[id] == nil, "request \(id) exists already")
        if let failure { throw .failed(failure) }
        if isDraining { throw .draining }
        try limits.check(request)
        let newTokenLimit = try newTokenLimit(of: request)
        let queued = waitingCount
        guard queued < configuration.maxQueuedRequests else {
            throw .overloaded(queued: queued, retryAfterSeconds: retryAfterSeconds)
        }
        let precedence = Precedence(priority: request.priority, arrival: arrivals)
        arrivals += 1
        sequences[id] = SequenceState(
            id: id, precedence: precedence, request: request, newTokenLimit: newTokenLimit)
        if request.mode == .decode {
            awaitPrefill(id)
        } else if !awaitRestoring(id) {
            queue.insert(id, at: precedence)
        }
    }

    /// Ends a request at once; no further event is reported for it. Pages that a step in flight may still write are
    /// freed when that step ends. Unknown ids are ignored, because a request may end while its abort is under way.
    package mutating func abort(_ id: UInt64) -> [Event] {
        guard let state = sequences[id], state.phase != .draining else { return [] }
        end(id)
        return [Event(request: id, event: .finished(.abort, state.usage))]
    }

    /// Refuses new requests from now on; accepted ones are still served.
    package mutating func drain() { isDraining = true }

    /// Ends every request with `message`, forgets steps in flight and refuses new requests, after the ranks failed or
    /// an invariant was violated.
    package mutating func fail(_ message: String) -> [Event] {
        failure = failure ?? message
        let ended = sequences.values.filter { $0.phase != .draining }.sorted { $0.precedence < $1.precedence }
        // The pool is replaced rather than emptied page by page, which would fail if an invariant is violated.
        pool = PagePool(totalPages: configuration.totalPages, pageSize: configuration.pageSize)
        windowPool = PagePool(totalPages: configuration.windowPages, pageSize: configuration.pageSize)
        cache = PrefixCache(of: pool, window: configuration.window)
        windowOwners = WindowOwners(configuration)
        for state in ended where state.mode != .none { transferActions.append(.cancel(state.id)) }
        awaitingPeer = []
        reserving = []
        restoring = []
        prefixLookups = []
        storablePrefixes = []
        sequences.removeAll()
        // New ranks know no grammars.
        endedGrammars = []
        queue.removeAll()
        running.removeAll()
        inFlight = []
        return ended.map { Event(request: $0.id, event: .failed(message)) }
    }

    /// Accepts requests again after new ranks have replaced failed ones. Every page is free by then.
    package mutating func restart() {
        precondition(failure != nil && isIdle, "only what has failed is started anew")
        failure = nil
        counters.restarts += 1
    }

    package var status: EngineStatus {
        var status = EngineStatus()
        status.running = running.count
        status.queued = waitingCount
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

    /// The number of accepted requests that do not run yet.
    private var waitingCount: Int { queue.count + awaitingPeer.count + restoring.count }

    /// For each request, its data group and how many of its tokens have keys in the cache.
    var computedTokens: [(group: Int, tokens: Int)] { sequences.values.map { ($0.group, $0.computed) } }

    /// Ends a request: removes it now, or when no step in flight writes its pages any more.
    mutating func end(_ id: UInt64) {
        guard let state = sequences[id], state.stepsInFlight > 0 else { return remove(id) }
        running.remove(at: state.precedence)
        sequences[id]!.phase = .draining
    }

    /// Removes a request and frees its pages.
    mutating func remove(_ id: UInt64) {
        guard let state = sequences.removeValue(forKey: id) else { preconditionFailure("request \(id) does not exist") }
        switch state.phase {
        case .queued: queue.remove(at: state.precedence)
        case .running, .receiving: running.remove(at: state.precedence)
        case .awaitingPeer: awaitingPeer.remove(id)
        case .restoring: restoring.remove(id)
        case .draining, .sending: break
        }
        reserving.remove(id)
        if state.mode != .none { transferActions.append(.cancel(id)) }
        if state.isGrammarAnnounced { endedGrammars.append(id) }
        releasePages(of: state)
    }

    /// A rough estimate, as the scheduler has no clock: one second for each time the running requests must be replaced
    /// before the queue is empty, at most a minute.
    private var retryAfterSeconds: Int { min(60, 1 + queue.count / configuration.maxRunningRequests) }
}
