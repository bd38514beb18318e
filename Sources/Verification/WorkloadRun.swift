import Disaggregation
package import Inference
import KVCache
import Modeling
import Parallelism
import Tensors

/// A transcript contains every answer and every recorded row of serving a workload once.
struct Transcript {
    /// The answers; the key is the request.
    var answers: [UInt64: Answer] = [:]
    var records = StageRecords()

    /// The answer to one request.
    struct Answer {
        var scores: [TokenLogProbs] = []
        var tokens: [TokenLogProbs] = []
        /// The reason why the request failed, if it did.
        var failure: String?

        mutating func add(_ event: GenerationEvent) {
            switch event {
            case .promptLogProbs(let scored): scores += scored
            case .token(let token): tokens.append(token)
            case .finished: break
            case .failed(let reason): failure = reason
            }
        }
    }
}

/// Run coverage counts what happened while cases were served: a feature that never came into play has not been
/// verified.
package struct RunCoverage: Sendable, Equatable {
    /// The number of requests that were preempted and computed again.
    package var preemptions: UInt64 = 0
    /// The number of prompt tokens whose keys were found in the prefix cache.
    package var cachedTokens: UInt64 = 0
    /// The number of chunks that used query-gather attention.
    package var dcpChunks: UInt64 = 0
    package var speculation = SpeculationCount()
    /// What prefill servers have sent.
    package var transfers = TransferCoverage()

    mutating func add(_ other: RunCoverage) {
        preemptions += other.preemptions
        cachedTokens += other.cachedTokens
        dcpChunks += other.dcpChunks
        speculation += other.speculation
        transfers.add(other.transfers)
    }
}

/// This type serves a case's workload in lock step (`LockStepServer`).
struct MixRun {
    /// The transcript of each time the workload was served.
    private(set) var runs: [Transcript] = []
    /// The violated invariants found after any step.
    private(set) var problems: [String] = []
    private(set) var coverage = RunCoverage()
    private var server: LockStepServer
    /// The prefill server of the case, and the link to it.
    private var prefill: PrefillLink?

    /// The processes that the ranks of both servers of a case are divided among; `nil` if all ranks run in this one.
    struct Jobs {
        var server: ServerProcesses?
        var prefill: ServerProcesses?
    }

    /// - Parameter stages: The stages to record.
    init(
        _ model: any Model, _ candidate: VerificationCase, _ mix: Workload, _ kernels: Kernels.Level?, _ jobs: Jobs,
        seed: UInt64, recording stages: Set<Stage>
    ) throws(GroupFailure) {
        let prefix = candidate.conditions.prefix
        let caching = prefix == .cold ? nil : candidate.prefill?.caching ?? .decode
        server = LockStepServer(
            model, candidate, mix, cachesPrefixes: caching == .decode || caching == .both, kernels,
            processes: jobs.server, recording: stages)
        defer { server.stop() }
        if let other = candidate.prefill {
            let first = LockStepServer(
                model, other.asCase(beside: candidate.conditions), mix,
                cachesPrefixes: caching == .prefill || caching == .both, kernels, processes: jobs.prefill,
                recording: stages)
            let layers =
                candidate.conditions.drafts > 0
                ? server.placement.format.layers.count : model.description.layers.count
            prefill = PrefillLink(first, to: server, layers: 0..<layers, other.link, seed: seed)
        }
        defer { prefill?.server.stop() }
        try serve(mix.requests, behind: prefix == .shared ? mix.warmupRequests : [])
        if prefix == .warm { try serve(mix.requests) }
        closeBooks()
    }

    /// - Parameter warmupRequests: Requests that are submitted some steps earlier.
    private mutating func serve(
        _ requests: [GenerationRequest], behind warmupRequests: [GenerationRequest] = []
    ) throws(GroupFailure) {
        var transcript = Transcript()
        submit(warmupRequests, from: UInt64(requests.count + 1))
        // After these steps some have computed their prompts, and most still run.
        for _ in 0..<(prefill == nil ? 2 : 4) where !isIdle { try step(&transcript) }
        submit(requests, from: 1)
        while !isIdle { try step(&transcript) }
        runs.append(transcript)
    }

    private var isIdle: Bool {
        server.scheduler.isIdle && prefill?.isIdle ?? true || prefill?.isStuck ?? false
    }

    private mutating func submit(_ requests: [GenerationRequest], from first: UInt64) {
        for (index, request) in requests.enumerated() {
            var request = request
            request.mode = prefill == nil ? .none : .decode
            do {
                try server.scheduler.submit(first + UInt64(index), request)
            } catch {
                preconditionFailure("a mix has a request that cannot be served: \(error)")
            }
        }
    }

    private mutating func step(_ transcript: inout Transcript) throws(GroupFailure) {
        let events: [Scheduler.Event]
        if prefill != nil {
            events = try prefill!.round(&server, &transcript.records)
        } else {
            while let plan = server.scheduler.nextStep() { server.submit(plan) }
            events = try server.finishStep(&transcript.records)
        }
        for event in events { transcript.answers[event.request, default: Transcript.Answer()].add(event.event) }
    }

    private mutating func closeBooks() {
        let status = server.scheduler.status
        coverage.preemptions = status.preemptions
        coverage.cachedTokens = status.cacheHitTokens
        coverage.speculation = status.speculation
        coverage.dcpChunks = server.dcpChunks
        if prefill?.isStuck ?? false { problems.append("the servers wait for each other") }
        server.checkBooks()
        problems += server.problems
        if prefill != nil { problems += prefill!.checkBooks() }
        guard let prefill else { return }
        let other = prefill.server.scheduler.status
        coverage.preemptions += other.preemptions
        coverage.cachedTokens += other.cacheHitTokens
        coverage.dcpChunks += prefill.server.dcpChunks
        coverage.transfers = prefill.coverage
    }
}
