import Hummingbird
import Inference
import JSON
import Tokenization

/// Handles the routes of operators: `/health` reports whether the process works, `/ready` whether it accepts requests;
/// `/metrics`, `/health_generate`, `/flush_cache` and `/abort_request` concern the engine.
struct HealthRoutes: Sendable {
    let configuration: ServerConfiguration
    let slot: ModelSlot

    func health(_ request: Request, _ context: ServingContext) async throws -> Response {
        if let failure = slot.failure { throw failure }
        return .json(.fields(["status": .string("ok")]))
    }

    func ready(_ request: Request, _ context: ServingContext) async throws -> Response {
        _ = try slot.service()
        return .json(.fields(["status": .string("ready")]))
    }

    /// Handles `/ping`, which some platforms ask instead of `/ready`.
    func ping(_ request: Request, _ context: ServingContext) async throws -> Response {
        try await ready(request, context)
    }

    func metrics(_ request: Request, _ context: ServingContext) async throws -> Response {
        // Read once, so that all of the page is about one engine while another one is loaded.
        let loaded = slot.loaded
        return .text(
            slot.metrics.text(
                model: configuration.servedModelName, status: loaded?.engine.status(),
                transfers: loaded?.transfers?.status(), prefixStore: loaded?.prefixStore?()),
            contentType: "text/plain; version=0.0.4; charset=utf-8")
    }

    /// Handles `POST /flush_cache`; a `GET` could be sent by any web page. Running requests go on, and keep their
    /// pages.
    func flushCache(_ request: Request, _ context: ServingContext) async throws -> Response {
        let engine = try slot.service().engine
        let freed: Int
        do throws(EngineError) {
            freed = try await engine.flushCache()
        } catch {
            throw RequestError(error)
        }
        return .json(
            .fields([
                "success": .bool(true), "freed_pages": .integer(freed),
                "message": .string("\(freed) cached pages were freed; pages that running requests use stay"),
            ]))
    }

    /// Handles `/health_generate`, which has the engine generate one token. A busy engine that works on other requests
    /// is well too, though it may be long until it takes one more.
    func healthGenerate(_ request: Request, _ context: ServingContext) async throws -> Response {
        let service = try slot.service()
        let before = service.engine.status().steps
        var probe = TextRequest(prompt: [service.tokenizer.bosToken ?? 0])
        probe.sampling.maxNewTokens = 1
        var generations: TextGenerations?
        var overload: RequestError?
        do {
            generations = try await service.start([probe], names: [:], slot: slot)
        } catch let refusal as RequestError {
            // A full queue says nothing about the engine, which may work on what is in it.
            guard case .overloaded = refusal.kind else { throw Self.unwell(because: refusal) }
            overload = refusal
        }
        defer { generations?.cancel() }
        switch await outcome(of: generations, service.engine, stepsBefore: before) {
        case .worked: return .json(.fields(["status": .string("ok")]))
        case .failed(let reason):
            throw RequestError(
                .unavailable, "the generation of one token failed: \(reason)", code: "generation_failed")
        case .stuck:
            if let overload { throw Self.unwell(because: overload) }
            throw RequestError(
                .unavailable, "the engine generated nothing within \(configuration.healthTimeout)", code: "engine_stuck"
            )
        }
    }

    /// Returns the error of `/health_generate` for a refusal of its request: the client that asks is at no fault.
    private static func unwell(because refusal: RequestError) -> RequestError {
        RequestError(.unavailable, refusal.message, code: refusal.code ?? "engine_stuck")
    }

    /// What an engine did within the time of `/health_generate`.
    private enum EngineOutcome: Sendable {
        case worked
        case failed(String)
        case stuck
    }

    /// Waits until one of the generations has a token, or the engine has worked on other requests.
    private func outcome(
        of generations: TextGenerations?, _ engine: any EngineClient, stepsBefore before: UInt64
    ) async -> EngineOutcome {
        await withTaskGroup(of: EngineOutcome.self) { race in
            if let generations {
                race.addTask {
                    for await (_, event) in generations.events {
                        switch event {
                        // A request that was aborted has been answered as well.
                        case .token, .finished: return .worked
                        case .failed(let reason): return .failed(reason)
                        case .started, .promptScores, .waiting: break
                        }
                    }
                    return .stuck
                }
            }
            let limit = configuration.healthTimeout
            race.addTask {
                let start = ContinuousClock.now
                while start.duration(to: .now) < limit, (try? await Task.sleep(for: .milliseconds(50))) != nil {
                    if engine.status().steps > before + 1 { return .worked }
                }
                return .stuck
            }
            defer { race.cancelAll() }
            return await race.next() ?? .stuck
        }
    }

    /// Handles `POST /abort_request`, which ends the requests with the id `rid` or `request_id`, or all with `abort_all`.
    /// Their clients get what was generated so far.
    func abortRequest(_ request: Request, _ context: ServingContext) async throws -> Response {
        let running = slot.running
        let count = try await BodyReader(configuration, slot).read(request, on: context.connection) { fields, _ in
            try FieldTable.check(fields, at: .abort)
            let abortsAll = try fields.bool("abort_all") ?? false
            let id = try fields.requestID()
            guard abortsAll || id?.isEmpty == false else {
                throw RequestError.invalid("rid", "rid is missing; give the id of a request, or \"abort_all\": true")
            }
            return running.abort(abortsAll ? nil : id)
        }
        return .json(.fields(["success": .bool(true), "aborted": .integer(count)]))
    }
}
