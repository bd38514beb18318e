import JSON

extension FieldTable {
    private static let texts: [Place] = [.chat, .completion, .generate]
    private static let openAI: [Place] = [.chat, .completion]
    /// The other dialects of the chat route.
    private static let dialects: [Place] = [.responses, .messages]
    /// The places of sampling parameters.
    private static let sampled: [Place] = [.chat, .completion, .sampling]
    private static let everywhere: [Place] = [.chat, .completion, .generate, .tokenize, .detokenize]
    private static let off: [JSONValue] = [.bool(false)]
    private static let empty: [JSONValue] = [.array([]), .object([]), .string("")]

    private static func honoured(_ places: [Place], _ names: String...) -> Row {
        Row(places: places, rule: .honoured, names: names)
    }

    private static func harmless(_ places: [Place], _ names: String...) -> Row {
        Row(places: places, rule: .harmless, names: names)
    }

    private static func refused(
        _ places: [Place], _ names: String..., unless neutral: [JSONValue] = [], advice: String
    ) -> Row {
        Row(places: places, rule: .refused(neutral: neutral, advice), names: names)
    }

    static let rows: [Row] =
        honouredRows + harmlessRows + formRows + modelRows + presentationRows + foreignRows + anthropicRows
        + responsesRows

    private static let honouredRows: [Row] = [
        honoured(openAI + dialects + [.countTokens], "model"),
        honoured(openAI + dialects, "stream"),
        honoured(openAI + [.responses], "stream_options"),
        honoured(openAI, "logprobs"),
        honoured([.chat, .messages, .countTokens, .tokenize], "messages", "tools", "tool_choice"),
        honoured([.chat], "max_completion_tokens", "max_tokens", "top_logprobs"),
        honoured([.chat, .responses, .tokenize], "reasoning_effort", "chat_template_kwargs", "enable_thinking"),
        honoured([.chat, .responses, .tokenize, .messages, .countTokens], "thinking"),
        honoured([.chat, .tokenize], "continue_final_message", "add_generation_prompt", "task"),
        honoured([.chat, .responses], "parallel_tool_calls"),
        honoured([.chat], "separate_reasoning"),
        honoured([.completion], "prompt", "max_tokens", "max_completion_tokens", "echo", "add_special_tokens"),
        honoured(
            [.generate], "text", "input_ids", "sampling_params", "return_logprob", "logprob_start_len",
            "top_logprobs_num", "return_text_in_logprobs", "stream"),
        honoured(texts + dialects, "cache_salt", "request_id", "rid"),
        honoured(texts, "bootstrap_host", "bootstrap_port", "bootstrap_room"),
        honoured(openAI + [.responses], "kv_transfer_params"),
        honoured(
            [.transferParams], "do_remote_decode", "do_remote_prefill", "remote_engine_id", "remote_host",
            "remote_port"),
        honoured(
            sampled + dialects, "temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty",
            "repetition_penalty", "logit_bias", "stop_token_ids", "ignore_eos", "skip_special_tokens",
            "include_stop_str_in_output", "no_stop_trim", "seed"),
        honoured(sampled + [.responses], "stop"),
        honoured(sampled, "n"),
        honoured(openAI + dialects, "min_tokens"),
        honoured([.sampling], "max_new_tokens", "min_new_tokens", "sampling_seed"),
        honoured([.tokenize], "prompt", "add_special_tokens"),
        honoured([.abort], "rid", "request_id", "abort_all"),
        honoured([.detokenize], "tokens", "skip_special_tokens"),
        honoured([.streamOptions], "include_usage", "continuous_usage_stats"),
        honoured(
            [.message], "role", "content", "reasoning_content", "reasoning", "tool_calls", "tool_call_id", "prefix",
            "task"),
    ]

    private static let harmlessRows: [Row] = [
        harmless(
            openAI + [.responses], "user", "store", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
            "prediction", "stream_reasoning"),
        harmless(openAI + dialects, "metadata", "service_tier"),
        harmless(everywhere, "log_metrics", "no_logs", "custom_labels", "external_trace_header", "received_time"),
        // Where a request runs, and how drafts are made, does not change the answer.
        harmless(
            texts + dialects, "bootstrap_pair_key", "disagg_prefill_dp_rank", "disagg_prefill_tp_size",
            "decode_tp_size",
            "data_parallel_rank", "conversation_id", "routed_dp_rank", "session_id", "routing_key",
            "kv_router_hint", "http_worker_ipc", "ngram_corpus_id"),
        // These say how to treat what is refused here or has no effect without it: images, and other values to return.
        harmless(
            everywhere + dialects, "media_io_kwargs", "images_config", "video_config", "max_dynamic_patch",
            "min_dynamic_patch", "image_max_dynamic_patch", "video_max_dynamic_patch", "use_audio_in_video",
            "mm_hashes", "mm_content_hashes", "need_wait_for_mm_inputs", "num_items_assigned", "encoder_urls",
            "return_mm_kwargs", "return_token_offsets", "routed_experts_start_len", "routed_experts_prompt_start",
            "truncation_side"),
        harmless([.tokenize], "mm_processor_kwargs"),
        harmless([.tokenize, .detokenize, .generate], "model"),
        harmless([.generate], "user"),
        // Byte-level tokens have no spaces between them; a stream may send an event for each token.
        harmless(sampled + dialects, "spaces_between_special_tokens", "stream_interval"),
        harmless([.streamOptions], "include_obfuscation"),
        // Any layout takes keys of any other, and how many a server lacks is its own business.
        harmless([.transferParams], "remote_request_id", "remote_num_tokens", "tp_size"),
        harmless([.message], "name", "refusal", "annotations", "id", "type", "status"),
    ]

    /// The members that ask for structured output; `AnswerForm` reads those that are honoured.
    private static let formRows: [Row] = [
        honoured(
            sampled, "response_format", "regex", "json_schema", "ebnf", "guided_json", "guided_regex", "guided_choice",
            "guided_grammar", "guided_json_object", "structured_outputs"),
        // There is one way of decoding, so none to fall back to.
        harmless(sampled, "guided_decoding_backend", "guided_decoding_disable_fallback"),
        refused(
            sampled + dialects, "guided_decoding_disable_any_whitespace", unless: off,
            advice: "use a JSON Schema, a regular expression or EBNF"),
        refused(
            dialects, "response_format", "regex", "json_schema", "ebnf", "guided_json", "guided_regex", "guided_choice",
            "guided_grammar", "guided_json_object", "structured_outputs", "structural_tag", "stop_regex",
            "guided_whitespace_pattern", unless: empty,
            advice: "use text.format in /v1/responses and output_config.format in /v1/messages"),
        refused(sampled + dialects, "guided_options_request", advice: "use structured_outputs"),
        refused(sampled + dialects, "grammar", unless: empty, advice: "use ebnf"),
        refused(openAI + dialects, "format", unless: empty, advice: "use response_format"),
        // SGLang's frontend sends an empty list of `stop_regex` with every request.
        refused(
            sampled, "structural_tag", "stop_regex", "guided_whitespace_pattern", unless: empty,
            advice: "use a JSON Schema, a regular expression or EBNF"),
        refused(
            [.generate], "response_format", "regex", "json_schema", "ebnf", "guided_json", "guided_regex",
            "guided_choice", "guided_grammar", "guided_json_object", "structured_outputs", "structural_tag",
            "stop_regex", "grammar", "format", unless: empty, advice: "it belongs into sampling_params on this route"),
        refused([.chat], "functions", unless: empty, advice: "use tools and tool_choice"),
        refused([.chat], "function_call", unless: [.string("none")], advice: "use tools and tool_choice"),
        refused([.message], "function_call", advice: "use tool_calls"),
        refused([.message], "tools", unless: empty, advice: "give the request's tools"),
        refused(
            [.chat], "verbosity", unless: [.string("medium")], advice: "ask for shorter or longer answers in a message"),
    ]

    /// The members that ask for abilities that no model or sampler here has.
    private static let modelRows: [Row] = [
        refused(
            [.chat], "reasoning", "thinking_token_budget", "think", "thinking_mode",
            advice: "use \"thinking\": {\"type\": \"enabled\" or \"disabled\"}, or reasoning_effort"),
        honoured([.thinking], "type", "clear_thinking"),
        refused(
            [.thinking], "budget_tokens", "budget", "max_tokens",
            advice: "no model here can keep to a budget; use the request's max_tokens, to which reasoning counts"),
        refused([.thinking], "effort", "reasoning_effort", advice: "use reasoning_effort of the request"),
        refused([.thinking], "keep", advice: "use clear_thinking"),
        refused(
            [.thinking], "display", unless: [.string("summarized")],
            advice: "leave out the reasoning when reading the answer"),
        refused(dialects, "think", "thinking_mode", "thinking_token_budget", advice: "use reasoning or thinking"),
        refused(
            [.chat], "modalities", unless: [.array([.string("text")])], advice: "this model reads and writes text only"),
        refused(
            [.chat, .generate], "audio", "audio_data", "image_data", "video_data", "mm_processor_kwargs",
            unless: empty, advice: "this model reads and writes text only"),
        refused([.message], "audio", advice: "this model reads and writes text only"),
        // OpenAI's clients ask for a search by an empty object.
        refused([.chat], "web_search_options", unless: off, advice: "put what was found into a message"),
        refused([.chat], "enable_search", unless: off, advice: "put what was found into a message"),
        refused([.chat], "documents", "data_sources", unless: empty, advice: "put what was found into a message"),
        refused([.chat, .tokenize] + dialects, "chat_template", advice: "the conversation's form is the model's own"),
        refused([.chat], "add_special_tokens", unless: off, advice: "the chat format writes them"),
        refused(
            [.chat], "include_reasoning", unless: [.bool(true)],
            advice: "leave out reasoning_content when reading the answer"),
        refused(
            sampled + dialects, "custom_params", "logits_processors", "custom_logit_processor", "vllm_xargs",
            unless: empty,
            advice: "requests cannot bring code"),
        refused([.generate], "custom_logit_processor", unless: empty, advice: "requests cannot bring code"),
        refused(sampled + dialects, "bad_words", "allowed_token_ids", unless: empty, advice: "use logit_bias"),
        refused(
            sampled + dialects, "use_beam_search", "beam_width", unless: off,
            advice: "use n and choose among the answers"),
        refused(sampled + dialects, "length_penalty", unless: [.integer(1)], advice: "there is no beam search"),
        refused(sampled + dialects, "early_stopping", unless: off, advice: "there is no beam search"),
        refused(
            sampled + dialects, "typical_p", "tfs", "tfs_z", unless: [.integer(1)],
            advice: "use temperature, top_p, top_k and min_p"),
        refused(
            sampled + dialects, "min_length", "top_a", "dry_multiplier", "xtc_probability", "mirostat",
            "dynatemp_range",
            unless: [.integer(0)], advice: "use temperature, top_p, top_k, min_p and min_tokens"),
        refused(
            sampled + dialects, "thinking_budget", advice: "use the limit of new tokens, to which reasoning counts"),
        refused([.completion], "suffix", unless: empty, advice: "this model only continues text; it does not fill in"),
        refused(openAI + dialects, "best_of", unless: [.integer(1)], advice: "use n and choose among the answers"),
        refused(
            texts + dialects, "lora_path", "lora_id", "session_params", "input_embeds", "prompt_embeds",
            "extra_key", "positional_embed_overrides", "multi_item_delimiter_indices", "ec_transfer_params",
            unless: empty, advice: "there is no such thing here"),
        refused(texts + dialects, "watermarking", unless: off, advice: "answers are not marked here"),
        refused(sampled + dialects, "repetition_detection", advice: "use repetition_penalty or max_tokens"),
        refused(
            [.generate], "require_reasoning", "max_thinking_tokens", unless: off,
            advice: "use /v1/chat/completions"),
        refused(
            [.completion, .generate], "enable_thinking", "thinking", "reasoning_effort", "chat_template_kwargs",
            "thinking_token_budget", unless: off + empty,
            advice: "use /v1/chat/completions, or write what it means into the prompt"),
        refused(
            texts + dialects, "priority", unless: [.integer(0)],
            advice: "requests are served in the order in which they come"),
        refused(
            dialects, "bootstrap_host", "bootstrap_port", "bootstrap_room",
            advice: "a router with --pd-disaggregation uses /generate, /v1/completions or /v1/chat/completions"),
        refused(
            [.generate, .messages], "kv_transfer_params",
            advice: "a router that gives them uses /v1/completions, /v1/chat/completions or /v1/responses"),
        refused(
            [.transferParams], "remote_block_ids", unless: [.array([])],
            advice: "keys are named by their positions here; give the params of a prefill server of this kind"),
        refused(
            [.transferParams], "transfer_id", "remote_bootstrap_addr",
            advice: "give the params of a prefill server's answer, as routers for NixlConnector do"),
        refused([.transferParams], "last_token_id", advice: "the decode server chooses all tokens"),
        refused(openAI + dialects + [.sampling], "truncate_prompt_tokens", advice: "shorten the prompt"),
        refused([.tokenize], "truncate_prompt_tokens", advice: "shorten the prompt"),
    ]

    /// The members that ask for values that answers do not show.
    private static let presentationRows: [Row] = [
        refused([.chat], "echo", unless: off, advice: "the conversation is known to its sender"),
        refused(
            openAI + dialects + [.sampling], "logprob_token_ids", unless: empty,
            advice: "use echo with logprobs in /v1/completions, or top_logprobs_num in /generate"),
        refused(
            openAI + dialects + [.sampling], "prompt_logprobs",
            advice: "use echo with logprobs in /v1/completions, or logprob_start_len in /generate"),
        refused([.generate], "token_ids_logprob", unless: empty, advice: "use top_logprobs_num"),
        refused(
            texts + dialects, "return_hidden_states", "return_tokens_as_token_ids", "return_token_ids", "return_bytes",
            "return_entropy", "return_routed_experts", "return_cached_tokens_details", "return_prompt_token_ids",
            "return_indexer_topk", "return_prompt_text", "return_meta_info", "return_sampling_mask",
            "return_flat_raw_top_logprobs", "return_flat_raw_top_logprobs_b64", unless: off,
            advice: "/generate shows token ids; other inner values are not shown"),
        refused([.tokenize], "return_token_strs", unless: off, advice: "use /detokenize"),
        refused([.generate], "background", unless: off, advice: "use a client that waits"),
    ]

    /// The names of other interfaces or routes, which would have no effect.
    private static let foreignRows: [Row] = [
        refused(
            everywhere + dialects, "extra_body", "options", unless: empty,
            advice: "put its members into the request itself"),
        refused(openAI + dialects, "n_predict", "num_predict", advice: "use max_tokens"),
        refused(openAI + dialects, "repeat_penalty", advice: "use repetition_penalty"),
        refused(openAI + dialects, "random_seed", advice: "use seed"),
        refused(
            openAI + dialects, "do_sample", unless: [.bool(true)], advice: "use temperature 0 for the likeliest tokens"),
        refused(openAI + dialects, "num_beams", "num_return_sequences", unless: [.integer(1)], advice: "use n"),
        refused(openAI + dialects, "max_length", advice: "use max_tokens, or max_output_tokens in /v1/responses"),
        refused([.chat], "prompt", advice: "give messages"),
        refused([.completion], "messages", advice: "give a prompt, or use /v1/chat/completions"),
        refused(openAI, "text", advice: "use /generate"),
        refused([.chat], "system", "instructions", "input", advice: "put it into a message"),
        refused([.completion], "system", "instructions", "input", advice: "put it into the prompt"),
        refused(openAI, "max_output_tokens", advice: "use max_tokens"),
        refused(openAI + dialects, "input_ids", "sampling_params", advice: "use /generate"),
        refused(openAI + dialects, "max_new_tokens", advice: "use max_tokens, or max_output_tokens in /v1/responses"),
        refused(openAI + dialects, "min_new_tokens", advice: "use min_tokens"),
        refused(openAI + dialects, "sampling_seed", advice: "use seed"),
        refused(openAI + [.responses], "stop_sequences", "stop_strings", unless: empty, advice: "use stop"),
        refused([.sampling], "max_tokens", "max_completion_tokens", advice: "use max_new_tokens"),
        refused([.sampling], "min_tokens", advice: "use min_new_tokens"),
        refused([.completion], "tools", "tool_choice", unless: empty, advice: "use /v1/chat/completions"),
        refused(
            [.generate], "prompt", "messages", "max_tokens", "max_new_tokens", "temperature", "top_p", "top_k", "min_p",
            "stop", "stop_token_ids", "n", "seed", "ignore_eos", "frequency_penalty", "presence_penalty",
            "repetition_penalty", "logit_bias", "min_new_tokens", "skip_special_tokens", "logprobs",
            advice: "give text or input_ids, and the rest within sampling_params"),
        refused([.detokenize], "text", "prompt", advice: "give tokens"),
        refused([.tokenize], "text", "tokens", unless: empty, advice: "give prompt"),
    ]

    /// The members of Anthropic's routes that no other route has.
    private static let anthropicRows: [Row] = [
        honoured([.messages, .countTokens], "system"),
        honoured([.messages, .countTokens], "output_config", "context_management"),
        honoured([.messages], "max_tokens", "stop_sequences", "output_format"),
        honoured([.messagesOutput], "effort", "format"),
        refused([.messagesOutput], "task_budget", advice: "use max_tokens, to which reasoning counts"),
        honoured([.messagesThinking], "type", "display"),
        // No model here can keep to a budget: reasoning counts to `max_tokens`.
        harmless([.messagesThinking], "budget_tokens"),
        honoured([.messagesTool], "type", "name", "description", "input_schema", "strict"),
        harmless([.messagesTool], "eager_input_streaming"),
        refused([.messagesTool], "input_examples", unless: empty, advice: "put examples into the description"),
        refused([.messagesTool], "defer_loading", unless: off, advice: "give only the tools to choose from"),
        refused(
            [.messagesTool], "allowed_callers", unless: [.array([.string("direct")])],
            advice: "this server runs no tools; the client does"),
        // A prefix is cached whether or not a request marks it.
        harmless([.messages, .countTokens, .messagesBlock, .messagesTool], "cache_control"),
        harmless([.messages], "inference_geo", "user_profile_id"),
        harmless([.countTokens], "output_format"),
        // Messages that are kept from one request to the next: a request has only the new ones.
        refused([.messages, .countTokens], "thread", advice: "nothing is stored; send all messages each time"),
        refused([.messages], "speed", unless: [.string("standard")], advice: "there is one speed"),
        refused(
            [.messages, .countTokens], "mcp_servers", "container", unless: empty,
            advice: "this server runs no tools; the client does"),
        refused([.messages], "n", unless: [.integer(1)], advice: "send the request as often as answers are wanted"),
        refused([.messages], "stop", "stop_strings", unless: empty, advice: "use stop_sequences"),
        refused([.messages], "max_completion_tokens", "max_output_tokens", advice: "use max_tokens"),
        refused([.messages], "prompt", "input", advice: "give messages"),
        refused([.messages], "instructions", advice: "use system"),
        refused([.messages], "functions", "function_call", advice: "use tools and tool_choice"),
        refused([.messages], "parallel_tool_calls", advice: "use tool_choice.disable_parallel_tool_use"),
        refused(
            [.messages, .countTokens], "reasoning", "reasoning_effort", "chat_template_kwargs", "enable_thinking",
            advice: "use thinking and output_config.effort"),
        refused([.messages], "logprobs", "top_logprobs", unless: off, advice: "use /v1/chat/completions"),
        honoured([.messagesBlock], "type", "text", "id", "name", "input", "tool_use_id", "content", "thinking"),
        // No chat format here has a mark for the result of a tool that failed: its content says what went wrong.
        harmless([.messagesBlock], "citations", "signature", "is_error", "caller"),
    ]

    /// The members of `/v1/responses` that no other route has.
    private static let responsesRows: [Row] = [
        honoured(
            [.responses], "input", "instructions", "max_output_tokens", "tools", "tool_choice", "text", "reasoning",
            "include"),
        harmless([.responses], "client_metadata"),
        refused([.responses], "background", unless: off, advice: "no response is stored; use a client that waits"),
        refused(
            [.responses], "previous_response_id", "conversation",
            advice: "no response is stored; send the whole conversation as input"),
        refused([.responses], "prompt", unless: empty, advice: "no prompts are stored; use instructions and input"),
        refused([.responses], "truncation", unless: [.string("disabled")], advice: "shorten the input"),
        refused([.responses], "context_management", unless: empty, advice: "shorten the input"),
        refused([.responses], "enable_response_messages", unless: off, advice: "use /tokenize to see the prompt"),
        refused(
            [.responses], "previous_input_messages", unless: empty, advice: "send the whole conversation as input"),
        refused([.responses], "max_tool_calls", advice: "this server runs no tools; the client does"),
        refused(
            [.responses], "top_logprobs", "logprobs", unless: [.integer(0), .bool(false)],
            advice: "use /v1/chat/completions"),
        refused([.responses], "n", unless: [.integer(1)], advice: "send the request as often as answers are wanted"),
        refused([.responses], "max_tokens", "max_completion_tokens", advice: "use max_output_tokens"),
        refused([.responses], "messages", advice: "use input"),
        refused([.responses], "system", advice: "use instructions"),
        refused([.responses], "functions", "function_call", advice: "use tools and tool_choice"),
        refused([.responses], "modalities", unless: [.array([.string("text")])], advice: "this model writes text only"),
        honoured([.responsesReasoning], "effort"),
        // There are no summaries.
        harmless([.responsesReasoning], "summary", "generate_summary"),
        refused(
            [.responsesReasoning], "max_tokens", "budget_tokens",
            advice: "use max_output_tokens, to which reasoning counts"),
        refused([.responsesReasoning], "enabled", advice: "use effort, which is 'none' for no reasoning"),
        refused(
            [.responsesReasoning], "exclude", unless: off,
            advice: "leave out items of reasoning when reading the answer"),
        honoured([.responsesText], "format"),
        refused(
            [.responsesText], "verbosity", unless: [.string("medium")],
            advice: "ask for shorter or longer answers in a message"),
        honoured(
            [.responsesItem], "type", "role", "content", "summary", "call_id", "name", "arguments", "output"),
        harmless([.responsesItem], "id", "status", "encrypted_content", "phase", "created_by"),
    ]
}
