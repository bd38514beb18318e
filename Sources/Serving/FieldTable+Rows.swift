import JSON

extension FieldTable {
    private static let texts: [Place] = [.chat, .completion, .generate]
    private static let openAI: [Place] = [.chat, .completion]
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

    static let rows: [Row] = honouredRows + harmlessRows + formRows + modelRows + presentationRows + foreignRows

    private static let honouredRows: [Row] = [
        honoured(openAI, "model", "stream", "stream_options", "logprobs"),
        honoured([.chat], "messages", "max_completion_tokens", "max_tokens", "top_logprobs", "tools", "tool_choice"),
        honoured([.chat], "parallel_tool_calls", "chat_template_kwargs", "thinking", "continue_final_message"),
        honoured([.chat], "separate_reasoning"),
        honoured([.completion], "prompt", "max_tokens", "max_completion_tokens", "echo", "add_special_tokens"),
        honoured(
            [.generate], "text", "input_ids", "sampling_params", "rid", "return_logprob", "logprob_start_len",
            "top_logprobs_num", "return_text_in_logprobs", "stream"),
        honoured(texts, "cache_salt"),
        honoured(
            sampled, "temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty",
            "repetition_penalty", "logit_bias", "stop", "stop_token_ids", "ignore_eos", "skip_special_tokens", "n",
            "include_stop_str_in_output", "no_stop_trim", "seed"),
        honoured(openAI, "min_tokens"),
        honoured([.sampling], "max_new_tokens", "min_new_tokens", "sampling_seed"),
        honoured([.tokenize], "prompt", "add_special_tokens"),
        honoured([.detokenize], "tokens", "skip_special_tokens"),
        honoured([.streamOptions], "include_usage"),
        honoured(
            [.message], "role", "content", "reasoning_content", "reasoning", "tool_calls", "tool_call_id", "prefix"),
    ]

    private static let harmlessRows: [Row] = [
        harmless(
            openAI, "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
            "prompt_cache_retention", "prediction", "request_id", "rid", "stream_reasoning"),
        harmless(everywhere, "log_metrics", "no_logs", "custom_labels", "external_trace_header", "received_time"),
        harmless(texts, "data_parallel_rank", "conversation_id", "routed_dp_rank"),
        harmless([.tokenize, .detokenize, .generate], "model"),
        harmless([.generate], "user", "request_id"),
        // Byte-level tokens have no spaces between them; a stream may send an event for each token.
        harmless(sampled, "spaces_between_special_tokens", "stream_interval"),
        harmless([.streamOptions], "include_obfuscation"),
        harmless([.message], "name", "refusal", "annotations", "id", "type", "status"),
    ]

    /// The members that ask for structured output; `AnswerForm` reads those that are honoured.
    private static let formRows: [Row] = [
        honoured(
            sampled, "response_format", "regex", "json_schema", "ebnf", "guided_json", "guided_regex", "guided_choice",
            "guided_grammar", "structured_outputs"),
        harmless(sampled, "guided_decoding_backend"),
        refused(
            sampled, "structural_tag", "stop_regex", "guided_whitespace_pattern",
            advice: "use a JSON Schema, a regular expression or EBNF"),
        refused(
            [.generate], "response_format", "regex", "json_schema", "ebnf", "guided_json", "guided_regex",
            "guided_choice", "guided_grammar", "structured_outputs", "structural_tag", "stop_regex",
            advice: "it belongs into sampling_params on this route"),
        refused([.chat], "functions", "function_call", advice: "use tools and tool_choice"),
        refused([.message], "function_call", advice: "use tool_calls"),
        refused(
            [.chat], "verbosity", unless: [.string("medium")], advice: "ask for shorter or longer answers in a message"),
    ]

    /// The members that ask for abilities that no model or sampler here has.
    private static let modelRows: [Row] = [
        refused(
            [.chat], "reasoning_effort", "reasoning", "thinking_token_budget",
            advice: "this model thinks or does not: use \"thinking\": {\"type\": \"enabled\" or \"disabled\"}"),
        refused(
            [.chat], "modalities", unless: [.array([.string("text")])], advice: "this model reads and writes text only"),
        refused(
            [.chat, .generate], "audio", "audio_data", "image_data", "video_data", "mm_processor_kwargs",
            unless: empty, advice: "this model reads and writes text only"),
        refused([.message], "audio", advice: "this model reads and writes text only"),
        refused([.chat], "web_search_options", "documents", unless: empty, advice: "put what was found into a message"),
        refused([.chat], "chat_template", advice: "the conversation's form is the model's own"),
        refused(
            [.chat], "add_generation_prompt", unless: [.bool(true)],
            advice: "use continue_final_message, or /v1/completions with a whole prompt"),
        refused([.chat], "add_special_tokens", unless: off, advice: "the chat format writes them"),
        refused(
            [.chat], "include_reasoning", unless: [.bool(true)],
            advice: "leave out reasoning_content when reading the answer"),
        refused(
            sampled, "custom_params", "logits_processors", "custom_logit_processor", "vllm_xargs", unless: empty,
            advice: "requests cannot bring code"),
        refused([.generate], "custom_logit_processor", unless: empty, advice: "requests cannot bring code"),
        refused(sampled, "bad_words", "allowed_token_ids", unless: empty, advice: "use logit_bias"),
        refused(sampled, "use_beam_search", "beam_width", unless: off, advice: "use n and choose among the answers"),
        refused(sampled, "length_penalty", unless: [.integer(1)], advice: "there is no beam search"),
        refused(sampled, "early_stopping", unless: off, advice: "there is no beam search"),
        refused(
            sampled, "typical_p", "min_length", "thinking_budget", "top_a", "tfs", "dry_multiplier", "xtc_probability",
            advice: "use temperature, top_p, top_k and min_p"),
        refused([.completion], "suffix", unless: empty, advice: "this model only continues text; it does not fill in"),
        refused([.completion], "best_of", unless: [.integer(1)], advice: "use n and choose among the answers"),
        refused(
            texts, "lora_path", "lora_id", "session_params", "session_id", "input_embeds", "prompt_embeds", "extra_key",
            unless: empty, advice: "there is no such thing here"),
        refused(
            texts, "priority", unless: [.integer(0)], advice: "requests are served in the order in which they come"),
        refused(
            texts, "bootstrap_host", "bootstrap_port", "bootstrap_room", "bootstrap_pair_key", "kv_transfer_params",
            "disagg_prefill_dp_rank", "disagg_prefill_tp_size", "decode_tp_size",
            advice:
                "this server prefills and decodes by itself; do not start a router with --pd-disaggregation before it"),
        refused(openAI + [.sampling], "truncate_prompt_tokens", advice: "shorten the prompt"),
        refused([.tokenize], "truncate_prompt_tokens", advice: "shorten the prompt"),
    ]

    /// The members that ask for values that answers do not show.
    private static let presentationRows: [Row] = [
        refused([.chat], "echo", unless: off, advice: "the conversation is known to its sender"),
        refused(
            openAI + [.sampling], "prompt_logprobs", "logprob_token_ids",
            advice: "use echo with logprobs in /v1/completions, or logprob_start_len in /generate"),
        refused([.generate], "token_ids_logprob", unless: empty, advice: "use top_logprobs_num"),
        refused(
            texts, "return_hidden_states", "return_tokens_as_token_ids", "return_token_ids", "return_bytes",
            "return_entropy", "return_routed_experts", "return_cached_tokens_details", "return_prompt_token_ids",
            "return_indexer_topk", unless: off, advice: "/generate shows token ids; other inner values are not shown"),
        refused([.tokenize], "return_token_strs", unless: off, advice: "use /detokenize"),
        refused([.streamOptions], "continuous_usage_stats", unless: off, advice: "use include_usage"),
        refused([.generate], "background", advice: "use a client that waits"),
        refused(
            [.tokenize], "messages", "tools", "chat_template", "chat_template_kwargs", "add_generation_prompt",
            "continue_final_message", unless: off,
            advice: "give a prompt; conversations are rendered by /v1/chat/completions"),
    ]

    /// The names of other interfaces or routes, which would have no effect.
    private static let foreignRows: [Row] = [
        refused([.chat], "prompt", advice: "give messages"),
        refused([.completion], "messages", advice: "give a prompt, or use /v1/chat/completions"),
        refused(openAI, "text", "input_ids", "sampling_params", advice: "use /generate"),
        refused(openAI, "max_new_tokens", advice: "use max_tokens"),
        refused(openAI, "min_new_tokens", advice: "use min_tokens"),
        refused(openAI, "sampling_seed", advice: "use seed"),
        refused(openAI, "stop_sequences", "stop_strings", advice: "use stop"),
        refused([.sampling], "max_tokens", "max_completion_tokens", advice: "use max_new_tokens"),
        refused([.sampling], "min_tokens", advice: "use min_new_tokens"),
        refused([.completion], "tools", "tool_choice", unless: empty, advice: "use /v1/chat/completions"),
        refused(
            [.generate], "prompt", "messages", "max_tokens", "max_new_tokens", "temperature", "top_p", "top_k", "min_p",
            "stop", "stop_token_ids", "n", "seed", "ignore_eos", "frequency_penalty", "presence_penalty",
            "repetition_penalty", "logit_bias", "min_new_tokens", "skip_special_tokens", "logprobs",
            advice: "give text or input_ids, and the rest within sampling_params"),
        refused([.detokenize], "text", "prompt", advice: "give tokens"),
        refused([.tokenize], "text", "tokens", advice: "give prompt"),
    ]
}
