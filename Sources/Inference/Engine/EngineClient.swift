package import Grammar

/// A server uses an engine through this protocol; it is the only way from asynchronous code to the ranks.
///
/// `Engine` is the implementation for service; tests use `ToyEngine`, whose answers can be worked out by hand.
package protocol EngineClient: Sendable {
    var limits: EngineLimits { get }
    /// Compiles a grammar, so that `submit` finds it ready. It may take seconds, unlike `submit`, and throws if the
    /// grammar cannot be compiled.
    func prepare(_ grammar: GrammarSource) throws(EngineError)
    /// Queues a request, or throws at once if it cannot be served. Dropping the returned stream aborts the request.
    func submit(_ request: GenerationRequest) throws(EngineError) -> Generation
    /// The error that new requests would get (`draining` or `failed`); `nil` while requests are accepted. Reading it
    /// takes constant time, so a server may do so for every request.
    var refusal: EngineError? { get }
    /// Returns the load after the last step. It copies the status and waits for no lock of the engine.
    func status() -> EngineStatus
    /// Returns the timeline of the last step that was traced, `nil` before the first, and has the next step traced, unless
    /// that was asked for less than half a second ago. So tracing costs nothing while no page asks. It waits for no lock of
    /// the engine.
    func timeline() -> StepTimeline?
    /// Returns the number of a running request's prompt tokens that were found in the prefix cache; `nil` before this is
    /// known and after the request has ended.
    func cachedTokens(of id: UInt64) -> Int?
    /// Aborts a request. Its last event, with the usage, follows at once, for readers that still read the stream.
    func abort(_ id: UInt64)
    /// Refuses new requests, lets running ones end, and returns when none is left: also when all ended with a failure, or
    /// the task is cancelled.
    func drain() async
    /// Stops the engine; requests that have not ended fail with this reason.
    func stop(_ reason: String)
    /// Frees all cached pages that no request uses, and returns their number. It throws, rather than wait for a rank or
    /// another thread that is gone, once the engine has failed.
    func flushCache() async throws(EngineError) -> Int
}

extension EngineClient {
    package func stop() { stop("the engine was stopped") }
}

/// A generation is an accepted request: its identifier, and the stream of its events.
package struct Generation: Sendable {
    package let id: UInt64
    /// The stream ends after `.finished` or `.failed`. Cancelling the task that reads it aborts the request and frees
    /// its pages.
    package let events: AsyncStream<GenerationEvent>
    package init(id: UInt64, events: AsyncStream<GenerationEvent>) {
        self.id = id
        self.events = events
    }
}

/// A request is checked against these bounds before it is queued.
package struct EngineLimits: Sendable, Equatable {
    /// The maximum number of prompt and new tokens of a request together.
    package var contextLength: Int
    package var vocabularySize: Int
    /// The maximum number of requests that run at the same time, in each data group.
    package var maxRunningRequests: Int
    package var maxQueuedRequests: Int
    package var maxTopLogProbs: Int
    package init(
        contextLength: Int, vocabularySize: Int, maxRunningRequests: Int, maxQueuedRequests: Int,
        maxTopLogProbs: Int = 20
    ) {
        self.contextLength = contextLength
        self.vocabularySize = vocabularySize
        self.maxRunningRequests = maxRunningRequests
        self.maxQueuedRequests = maxQueuedRequests
        self.maxTopLogProbs = maxTopLogProbs
    }
}

/// The status is a snapshot of the engine's load and counters, for `/metrics` and `/ready`.
package struct EngineStatus: Sendable, Equatable {
    package var running = 0
    package var queued = 0
    /// Every page is free, cached or used: `freePages + cachedPages + usedPages == totalPages`.
    package var freePages = 0
    /// The number of pages that no request uses and that the prefix cache keeps for later ones.
    package var cachedPages = 0
    package var usedPages = 0
    package var totalPages = 0
    package var pageSize = 0
    /// The bytes of one token's keys in all layers.
    package var keyBytesPerToken = 0
    /// Token and preemption counters count from the start of the engine.
    package var promptTokens: UInt64 = 0
    package var generatedTokens: UInt64 = 0
    package var preemptions: UInt64 = 0
    /// `cacheLookupTokens` counts the prompt tokens that were looked up in the prefix cache, `cacheHitTokens` those
    /// that were found.
    package var cacheLookupTokens: UInt64 = 0
    package var cacheHitTokens: UInt64 = 0
    /// `drafts` is the number of tokens drafted for each request in a step, `speculation` counts how many were
    /// accepted.
    package var drafts = 0
    package var speculation = SpeculationCount()
    package var steps: UInt64 = 0
    /// `busySeconds` is the time during which at least one request was running, `runningSeconds` the time of all running
    /// requests added up: divided, they give the mean number of requests that ran at the same time.
    package var busySeconds = 0.0
    package var runningSeconds = 0.0
    package var isDraining = false
    package var settings = EngineSettings()
    /// The parallel configuration in words, for example "one rank".
    package var layout = "one rank"
    /// The number of threads that share the work of each rank.
    package var threadsPerRank = 1
    /// The name of the numerics profile.
    package var dtype = "float32"
    /// The instruction-set level of the kernels.
    package var kernels = "reference"
    /// Token `t` of a request is owned by rank `(t / keyUnit) mod keyOwners` of its data group (KV sharding).
    package var keyOwners = 1
    package var keyUnit = 1
    /// The statistics of each rank since the ranks were started.
    package var ranks: [RankStatus] = []
    /// The number of times that failed ranks were replaced by new ones.
    package var restarts: UInt64 = 0
    /// The failure that ended service; no request is served once it is set.
    package var failure: String?
    package init() {}
}

/// An engine error tells why the engine refused a request, or can serve none any longer.
package enum EngineError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The request can never be served; `parameter` names the field at fault (`prompt`, `max_new_tokens`, …).
    case invalid(parameter: String, message: String)
    /// The queue is full; the client may try again after about this many seconds.
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

/// An engine failure describes why the engine ended service.
package struct EngineFailure: Sendable, Equatable {
    /// The reason names the rank that failed.
    package let reason: String
    /// True if code of a rank trapped, after which this process cannot go on.
    package let isTrap: Bool
}
