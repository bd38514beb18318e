/// The options of other engines' clients that `braid bench serving` and `braid eval gsm8k` do not have under their names.
extension CompatibilityTable {
    static let benchServing: [CompatibilityOption] = joined([
        renamed("--num-prompt", to: "--num-prompts", .integer(1...Parsing.maxCount)),
        renamed("--dataset", to: "--dataset-name"),
        renamed("--endpoint-type", to: "--backend"),
        renamed("--input-len", to: "--random-input-len"),
        renamed("--output-len", to: "--random-output-len"),
        renamed("--num-warmups", to: "--warmup-requests"),
        renamed("--extra-body", to: "--extra-request-body"),
        renamed("--served-model-name", to: "--model"),
        always("--ignore-eos", because: "answers have their full length unless --disable-ignore-eos is given"),
        always("--tokenize-prompt", because: "prompts are sent as token ids wherever the interface takes them"),
        always("--trust-remote-code", because: "no code of a checkpoint is ever executed"),
        always("--disable-tqdm", because: "progress is only shown on a terminal"),
        options(.client, .any, "--tokenizer", "--tokenizer-mode", "--metric-percentiles", "--percentile-metrics"),
        options(.client, .any, "--label", "--tag", "--goodput"),
        refused(
            flags: "--return-logprob", "--apply-chat-template", "--profile", "--multi", "--pd-separated",
            "--return-routed-experts", because: "there is no such mode here; see --extra-request-body and --trace"),
        refused(flags: "--flush-cache", because: "send POST /flush_cache to the server before"),
        refused(
            "--dataset-split", "--hf-split", "--hf-subset", "--sharegpt-context-len", "--random-image-count",
            because: "datasets are random ones and ShareGPT files; see --dataset-name"),
        refused("--burstiness", neutral: ["1", "1.0"], because: "requests arrive as a Poisson process"),
    ])

    static let evalGSM8K: [CompatibilityOption] = joined([
        renamed("--num-threads", to: "--parallel"),
        renamed("--num-examples", to: "--num-questions"),
        renamed("--max-tokens", to: "--max-new-tokens"),
        renamed("--num-fewshot", to: "--num-shots"),
        renamed("--result-file", to: "--output-file"),
    ])
}
