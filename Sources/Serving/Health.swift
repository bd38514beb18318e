import Hummingbird
import Inference
import JSON

/// Handles the routes of operators: `/health` reports whether the process works, `/ready` whether it accepts requests;
/// `/metrics`, `/server_info` and `/flush_cache` concern the engine.
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

    func metrics(_ request: Request, _ context: ServingContext) async throws -> Response {
        .text(
            slot.metrics.text(model: configuration.servedModelName, status: slot.loaded?.engine.status()),
            contentType: "text/plain; version=0.0.4; charset=utf-8")
    }

    /// Handles `POST /flush_cache`; a `GET` could be sent by any web page. Running requests go on, and keep their
    /// pages.
    func flushCache(_ request: Request, _ context: ServingContext) async throws -> Response {
        let freed = try slot.service().engine.flushCache()
        return .json(
            .fields([
                "success": .bool(true), "freed_pages": .integer(freed),
                "message": .string("\(freed) cached pages were freed; pages that running requests use stay"),
            ]))
    }

    /// Returns a rank's index among the ranks that share keys, and the number of tokens of running requests that it
    /// owns.
    private static func keys(of rank: RankStatus) -> JSONValue {
        .fields([
            "rank": .integer(rank.rank), "owner": .integer(rank.keyOwner), "tokens": .integer(rank.ownedTokens),
        ])
    }

    /// Handles `GET /server_info`: the configuration without the API key, and the state of the KV cache.
    func serverInfo(_ request: Request, _ context: ServingContext) async throws -> Response {
        let service = try slot.service()
        let (limits, status) = (service.engine.limits, service.engine.status())
        return .json(
            .fields([
                "served_model_name": .string(configuration.servedModelName),
                "context_length": .integer(limits.contextLength),
                "vocab_size": .integer(limits.vocabularySize),
                "max_queued_requests": .integer(limits.maxQueuedRequests),
                "max_top_logprobs": .integer(min(limits.maxTopLogProbs, configuration.requests.maxTopLogProbs)),
                "max_choices": .integer(configuration.requests.maxChoices),
                "max_body_bytes": .integer(configuration.maxBodyBytes),
                "layout": .string(status.layout),
                "ranks": .integer(status.ranks.count),
                "threads_per_rank": .integer(status.threadsPerRank),
                "page_size": .integer(status.pageSize),
                "kv_pages": .integer(status.totalPages),
                "kv_pages_free": .integer(status.freePages),
                "kv_pages_cached": .integer(status.cachedPages),
                "kv_pages_used": .integer(status.usedPages),
                "speculative_num_steps": .integer(status.drafts),
                "avg_spec_accept_length": status.speculation.acceptLength.map(JSONValue.number) ?? .null,
                "kv_bytes_per_token": .integer(status.keyBytesPerToken),
                "kv_owners": .integer(status.keyOwners),
                "kv_owner_unit": .integer(status.keyUnit),
                "kv_ranks": .array(status.ranks.map(Self.keys)),
                "max_total_num_tokens": .integer(status.totalPages * status.pageSize),
                "default_sampling_params": .fields([
                    "temperature": .number(service.defaults.temperature), "top_p": .number(service.defaults.topP),
                    "top_k": .integer(service.defaults.topK),
                ]),
            ]))
    }
}
