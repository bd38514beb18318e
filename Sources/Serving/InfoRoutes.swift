import Foundation
import Hummingbird
import Inference
import JSON
import Tokenization

/// Handles the routes that describe the server to routers and clients, under the names that SGLang and vLLM have.
struct InfoRoutes: Sendable {
    let configuration: ServerConfiguration
    let slot: ModelSlot

    func version(_ request: Request, _ context: ServingContext) async throws -> Response {
        .json(.fields(["version": .string(ServerConfiguration.version)]))
    }

    private var modelPath: String {
        configuration.model.path.isEmpty ? configuration.servedModelName : configuration.model.path
    }

    func modelInfo(_ request: Request, _ context: ServingContext) async throws -> Response {
        _ = try slot.service()
        let model = configuration.model
        return .json(
            .fields([
                "model_path": .string(modelPath), "tokenizer_path": .string(modelPath), "is_generation": .bool(true),
                "preferred_sampling_params": .null, "weight_version": .string("default"),
                "has_image_understanding": .bool(false), "has_audio_understanding": .bool(false),
                "model_type": .optional(model.type), "architectures": .array(model.architectures.map(JSONValue.string)),
            ]))
    }

    /// Describes the tokenizer, as vLLM does.
    func tokenizerInfo(_ request: Request, _ context: ServingContext) async throws -> Response {
        let service = try slot.service()
        let tokenizer = service.tokenizer
        func text(_ token: Int32?) -> JSONValue { .optional(token.map { service.text(of: $0) }) }
        let format = try? service.chatFormat.get()
        return .json(
            .fields([
                "tokenizer_class": .string("PreTrainedTokenizerFast"),
                "vocab_size": .integer(tokenizer.vocabularySize),
                "model_max_length": .integer(service.engine.limits.contextLength),
                "bos_token": text(tokenizer.bosToken), "bos_token_id": Self.id(tokenizer.bosToken),
                "eos_token": text(tokenizer.eosToken), "eos_token_id": Self.id(tokenizer.eosToken),
                "chat_format": .optional(format?.rawValue),
            ]))
    }

    private static func id(_ token: Int32?) -> JSONValue { token.map(JSONValue.integer) ?? .null }

    // MARK: - Load

    /// Handles `/v1/loads`, which routers ask for the number of requests and the use of the KV cache.
    func loads(_ request: Request, _ context: ServingContext) async throws -> Response {
        let service = try slot.service()
        let (limits, status) = (service.engine.limits, service.engine.status())
        let used = status.usedPages * status.pageSize
        let total = status.totalPages * status.pageSize
        let usage = total == 0 ? 0 : Double(used) / Double(total)
        let hits =
            status.cacheLookupTokens == 0 ? 0 : Double(status.cacheHitTokens) / Double(status.cacheLookupTokens)
        let load = JSONValue.fields([
            "dp_rank": .integer(0), "num_running_reqs": .integer(status.running),
            "num_waiting_reqs": .integer(status.queued), "num_total_reqs": .integer(status.running + status.queued),
            "num_used_tokens": .integer(used), "max_total_num_tokens": .integer(total), "token_usage": .number(usage),
            "cache_hit_rate": .number(hits), "max_running_requests": .integer(limits.maxRunningRequests),
        ])
        return .json(
            .fields([
                "timestamp": .string(Date().formatted(.iso8601)), "version": .string(ServerConfiguration.version),
                "start_time": .integer(slot.created),
                "served_model_name": .string(configuration.servedModelName),
                "disaggregation_mode": .string(service.transfers?.status().mode ?? "null"),
                "dp_rank_count": .integer(1), "loads": .array([load]),
                "aggregate": .fields([
                    "total_running_reqs": .integer(status.running), "total_waiting_reqs": .integer(status.queued),
                    "total_reqs": .integer(status.running + status.queued), "avg_token_usage": .number(usage),
                ]),
            ]))
    }

    /// Handles `/get_load`, SGLang's older form of `/v1/loads`.
    func load(_ request: Request, _ context: ServingContext) async throws -> Response {
        let status = try slot.service().engine.status()
        return .json(
            .array([
                .fields([
                    "dp_rank": .integer(0), "num_reqs": .integer(status.running + status.queued),
                    "num_waiting_reqs": .integer(status.queued),
                    "num_tokens": .integer(status.usedPages * status.pageSize),
                ])
            ]))
    }

    // MARK: - Server

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
        let transfers = service.transfers?.status()
        let facts = JSONMember.list([
            "model_path": .string(modelPath), "tokenizer_path": .string(modelPath),
            "version": .string(ServerConfiguration.version),
            "dtype": .string(status.dtype),
            "load_balance_method": .string("round_robin"),
            "disaggregation_mode": .string(transfers?.mode ?? "null"),
            "disaggregation": transfers?.json ?? .null, "is_embedding": .bool(false),
            "max_total_tokens": .integer(status.totalPages * status.pageSize),
            "max_running_requests": .integer(limits.maxRunningRequests),
            "status": .string("ready"),
        ])
        let measures = JSONMember.list([
            "served_model_name": .string(configuration.servedModelName),
            "context_length": .integer(limits.contextLength),
            "vocab_size": .integer(limits.vocabularySize),
            "max_queued_requests": .integer(limits.maxQueuedRequests),
            "max_top_logprobs": .integer(configuration.requests.maxTopLogProbs(with: limits)),
            "max_choices": .integer(configuration.requests.maxChoices),
            "max_body_bytes": .integer(configuration.maxBodyBytes),
            "layout": .string(status.layout),
            "ranks": .integer(status.ranks.count),
            "threads_per_rank": .integer(status.threadsPerRank),
            "kernels": .string(status.kernels),
            "speculative_num_steps": .integer(status.drafts),
            "avg_spec_accept_length": status.speculation.acceptLength.map(JSONValue.number) ?? .null,
            "prefix_store": service.prefixStore?().json ?? .null,
            "default_sampling_params": Self.parameters(service.defaults),
        ])
        return .json(.object(facts + Self.sizes(status.settings) + measures + Self.cache(status)))
    }

    private static func parameters(_ defaults: SamplingDefaults) -> JSONValue {
        .fields([
            "temperature": .setting(defaults.temperature), "top_p": .setting(defaults.topP),
            "top_k": .integer(defaults.topK), "min_p": .setting(defaults.minP),
            "repetition_penalty": .setting(defaults.repetitionPenalty),
            "presence_penalty": .setting(defaults.presencePenalty),
            "frequency_penalty": .setting(defaults.frequencyPenalty),
            "max_new_tokens": defaults.maxNewTokens.map { .integer($0) } ?? .null,
            "skip_special_tokens": .bool(defaults.skipsSpecialTokens),
        ])
    }

    /// Returns the state of the KV cache.
    private static func cache(_ status: EngineStatus) -> [JSONMember] {
        JSONMember.list([
            "page_size": .integer(status.pageSize),
            "kv_pages": .integer(status.totalPages),
            "kv_pages_free": .integer(status.freePages),
            "kv_pages_cached": .integer(status.cachedPages),
            "kv_pages_used": .integer(status.usedPages),
            "kv_bytes_per_token": .integer(status.keyBytesPerToken),
            "kv_owners": .integer(status.keyOwners),
            "kv_owner_unit": .integer(status.keyUnit),
            "kv_ranks": .array(status.ranks.map(keys)),
            "max_total_num_tokens": .integer(status.totalPages * status.pageSize),
        ])
    }

    /// Returns the settings in force under the names of SGLang's server arguments, where it has the same; the others are
    /// named as options of `braid serve`.
    private static func sizes(_ settings: EngineSettings) -> [JSONMember] {
        JSONMember.list([
            "tp_size": .integer(settings.tpSize), "dp_size": .integer(settings.attnDPSize),
            "enable_dp_attention": .bool(settings.attnDPSize > 1),
            "attn_cp_size": .integer(settings.attnCPSize), "attn_tp_size": .integer(settings.attnTPSize),
            "pp_size": .integer(settings.ppSize),
            "pp_layer_partition": settings.ppLayerPartition.map { .array($0.map { .integer($0) }) } ?? .null,
            "ep_size": .integer(settings.epSize), "moe_tp_size": .integer(settings.moeTPSize),
            "moe_dense_tp_size": .integer(settings.moeDenseTPSize),
            "moe_a2a_backend": .string(settings.moeA2ABackend), "cp_strategy": .string(settings.cpStrategy),
            "dcp_size": .integer(settings.dcpSize), "dcp_interleave": .integer(settings.dcpInterleave),
            "dcp_min_keys": .integer(settings.dcpMinKeys),
            "layout_notation": .string(settings.notation),
            "chunked_prefill_size": .integer(settings.chunkedPrefillSize),
            "max_prefill_tokens": .integer(settings.maxPrefillTokens),
            "kv_cache_dtype": .string(settings.kvCacheDtype),
            "enable_deepseek_v4_fp4_indexer": .bool(settings.hasFP4Index),
            "disable_radix_cache": .bool(!settings.prefixCache),
            "processes": .integer(settings.processes),
        ])
    }
}
