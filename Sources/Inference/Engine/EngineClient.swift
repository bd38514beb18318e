/// What a server needs of an engine: the one door from asynchronous code to the ranks.
///
/// `Engine` is the real one; tests use an engine whose answers can be worked out by hand.
package protocol EngineClient: Sendable {
    var limits: EngineLimits { get }
    /// Takes a request or says at once why not. Dropping the stream aborts the request.
    func submit(_ request: GenerationRequest) throws(EngineError) -> Generation
    /// The reason why new work would be refused: draining or failed; `nil` while it is taken. Constant time, for every
    /// request.
    var refusal: EngineError? { get }
    /// The load after the last step. It costs a copy and waits for no lock of the engine.
    func status() -> EngineStatus
    /// Ends a request whose events are still being read: the last of them, with its usage, comes at once.
    func abort(_ id: UInt64)
    /// Refuses new requests, lets running ones end, returns when none is left.
    func drain() async
    /// Ends the engine; requests still running fail with this reason.
    func stop(_ reason: String)
    /// Forgets all cached pages that no request uses. Returns how many that were.
    func flushCache() -> Int
}

extension EngineClient {
    package func stop() { stop("the engine was stopped") }
}

/// A request on its way: its number and what happens to it.
package struct Generation: Sendable {
    package let id: UInt64
    /// Ends after `.finished` or `.failed`. Cancelling the task that reads it aborts the request and frees its pages.
    package let events: AsyncStream<GenerationEvent>
    package init(id: UInt64, events: AsyncStream<GenerationEvent>) {
        self.id = id
        self.events = events
    }
}

/// The bounds a request is checked against before it is queued.
package struct EngineLimits: Sendable, Equatable {
    /// Prompt and new tokens together, at most.
    package var contextLength: Int
    package var vocabularySize: Int
    package var maxQueuedRequests: Int
    package var maxTopLogProbs: Int
    package init(contextLength: Int, vocabularySize: Int, maxQueuedRequests: Int, maxTopLogProbs: Int = 20) {
        self.contextLength = contextLength
        self.vocabularySize = vocabularySize
        self.maxQueuedRequests = maxQueuedRequests
        self.maxTopLogProbs = maxTopLogProbs
    }
}

/// A moment's load, for `/metrics` and `/ready`.
package struct EngineStatus: Sendable, Equatable {
    package var running = 0
    package var queued = 0
    /// Pages are free, cached or used: together they are all.
    package var freePages = 0
    /// Pages that no request uses, but whose tokens are known.
    package var cachedPages = 0
    package var usedPages = 0
    package var totalPages = 0
    package var pageSize = 0
    /// Since the start.
    package var promptTokens: UInt64 = 0
    package var generatedTokens: UInt64 = 0
    package var preemptions: UInt64 = 0
    /// Prompt tokens that were looked for in the cache, and those of them that were found there.
    package var cacheLookupTokens: UInt64 = 0
    package var cacheHitTokens: UInt64 = 0
    /// Tokens guessed behind each request, and how well.
    package var drafts = 0
    package var speculation = SpeculationCount()
    package var steps: UInt64 = 0
    package var isDraining = false
    /// How the ranks share the work, in words.
    package var layout = "one rank"
    /// Threads that share the work inside each rank.
    package var threadsPerRank = 1
    /// Among how many ranks a request's keys are divided, in runs of so many tokens.
    package var keyOwners = 1
    package var keyUnit = 1
    /// What each rank did since the ranks were started.
    package var ranks: [RankStatus] = []
    /// How often the ranks have failed and been started anew.
    package var restarts: UInt64 = 0
    /// Set once the ranks have failed for good: nothing will be served any more.
    package var failure: String?
    package init() {}
}

/// Why the engine did not take a request, or no longer can.
package enum EngineError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The request can never be served; `parameter` names the part at fault (`prompt`, `max_new_tokens`, …).
    case invalid(parameter: String, message: String)
    /// Try again after about this many seconds.
    case overloaded(queued: Int, retryAfterSeconds: Int)
    case draining
    case failed(String)

    package var description: String {
        switch self {
        case .invalid(let parameter, let message): "\(parameter): \(message)"
        case .overloaded(let queued, let seconds):
            "\(queued) requests are waiting, which is the limit; try again in \(seconds) s or raise --max-queued-requests"
        case .draining: "the server is shutting down and takes no new requests"
        case .failed(let reason): "the engine has stopped: \(reason)"
        }
    }
}

/// Why an engine serves no more.
package struct EngineFailure: Sendable, Equatable {
    /// Names the rank.
    package let reason: String
    /// Whether code of a rank trapped, so that this process cannot go on.
    package let isTrap: Bool
}
