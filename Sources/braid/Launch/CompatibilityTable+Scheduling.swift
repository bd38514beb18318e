/// Options of SGLang's and vLLM's servers about scheduling, telemetry and the connections of clients.
extension CompatibilityTable {
    static let scheduling: [CompatibilityOption] = joined([
        options(
            .scheduling,
            .oneOf([
                "lpm", "random", "fcfs", "dfs-weight", "lof", "priority", "routing-key", "hrrn",
                "shortest-prefill-first",
            ]), "--schedule-policy"),
        options(.scheduling, .oneOf(["fcfs", "priority"]), "--scheduling-policy"),
        options(.scheduling, .oneOf(["length", "priority"]), "--retraction-policy"),
        options(.scheduling, .oneOf(["swap", "recompute"]), "--preemption-mode"),
        options(.scheduling, .oneOf(["balanced", "interactivity", "throughput"]), "--performance-mode"),
        options(
            .scheduling, .number(0...1000), "--schedule-conservativeness", "--prefill-max-requests",
            "--scheduler-delay-factor", "--dynamic-batch-tokenizer-batch-timeout"),
        options(
            .scheduling, .number(0...1_000_000), "--prefill-delayer-token-usage-low-watermark",
            "--prefill-delayer-queue-min-ratio", "--prefill-delayer-max-delay-ms"),
        options(
            .scheduling,
            .oneOf([
                "auto", "round_robin", "shortest_queue", "minimum_tokens", "decode_round_robin",
                "follow_bootstrap_room",
                "total_requests", "total_tokens",
            ]), "--load-balance-method"),
        options(
            .scheduling, count, "--num-continuous-decode-steps", "--num-scheduler-steps", "--stream-interval",
            "--pp-max-micro-batch-size", "--max-micro-batch-size", "--pp-async-batch-depth", "--tokenizer-worker-num",
            "--prefill-delayer-max-delay-passes", "--max-num-partial-prefills", "--max-long-partial-prefills",
            "--long-prefill-token-threshold", "--api-server-count", "-asc", "--detokenizer-worker-num",
            "--scheduler-recv-interval", "--dbo-decode-token-threshold", "--dbo-prefill-token-threshold",
            "--prefill-decode-interval", "--prefill-decode-interval-min-bs", "--prefill-schedule-interval",
            "--priority-scheduling-preemption-threshold", "--min-free-slots-delay", "--batch-notify-size",
            "--dynamic-batch-tokenizer-batch-size", "--ubatch-size", "--renderer-num-workers",
            "--num-lookahead-slots", "--tokenizer-pool-size"),
        options(.scheduling, .integer(-1 << 31...1 << 31), "--default-priority-value"),
        options(.scheduling, .number(0...1), "--tbo-token-distribution-threshold"),
        options(
            .scheduling, .number(0...1), "--eplb-min-rebalancing-utilization-threshold"),
        options(.scheduling, .oneOf(["lru", "lfu", "slru", "priority", "tlru"]), "--radix-eviction-policy"),
        flags(
            .scheduling, "--disable-overlap-schedule", "--enable-two-batch-overlap", "--enable-single-batch-overlap",
            "--disable-chunked-prefix-cache", "--async-scheduling", "--enable-dbo", "--enable-tokenizer-batch-encode",
            "--enable-priority-scheduling", "--sleep-on-idle", "--enable-prefill-delayer",
            "--prefill-round-robin-balance", "--disable-frontend-multiprocessing", "--enable-eplb",
            "--multi-step-stream-outputs", "--disable-priority-preemption", "--schedule-low-priority-values-first",
            "--enable-dynamic-batch-tokenizer", "--disable-tokenizer-batch-decode", "--scheduler-reserve-full-isl",
            "--long-prefill-token-threshold-adaptive", "--disable-async-output-proc", "--enable-overlap-schedule",
            "--disable-jump-forward", "--enable-multi-layer-eagle", "--speculative-adaptive"),
        options(
            .scheduling, .any, "--eplb-algorithm", "--ep-dispatch-algorithm", "--init-expert-location", "--warmups",
            "--speculative-adaptive-config", "--tokenizer-pool-type", "--tokenizer-pool-extra-config"),
        options(
            .scheduling, count, "--ep-num-redundant-experts", "--eplb-rebalance-num-iterations",
            "--eplb-rebalance-layers-per-chunk"),
        options(.scheduling, .json, "--eplb-config"),
        lists(
            .scheduling, .number(0...1e9), "--gc-threshold", "--prefill-delayer-forward-passes-buckets",
            "--prefill-delayer-wait-seconds-buckets"),
    ])

    static let telemetry: [CompatibilityOption] = joined([
        flags(
            .telemetry, "--collect-tokens-histogram", "--enable-request-time-stats-logging",
            "--enable-metrics-for-all-schedulers", "--show-time-cost", "--enable-trace", "--disable-log-stats",
            "--enable-layerwise-nvtx-marker", "--enable-layerwise-nvtx-tracing", "--ray-workers-use-nsight",
            "--enable-expert-distribution-metrics", "--show-hidden-metrics", "--disable-uvicorn-access-log",
            "--enable-mfu-metrics", "--kv-cache-metrics", "--cudagraph-metrics", "--enable-nan-detection",
            "--export-metrics-to-file", "--enable-forward-pass-metrics", "--enable-logging-iteration-details",
            "--jit-monitor-verbose", "--aggregate-engine-logging", "--enable-log-outputs", "--enable-log-deltas",
            "--log-error-stack", "--fail-on-environ-validation"),
        options(
            .telemetry, count, "--decode-log-interval", "--log-requests-level", "--max-log-len",
            "--gc-warning-threshold-secs", "--expert-distribution-recorder-buffer-size",
            "--load-snapshot-publish-interval", "--kv-canary-sweep-interval"),
        options(
            .telemetry, .number(0...1_000_000), "--soft-watchdog-timeout", "--kv-cache-metrics-sample"),
        options(.telemetry, .oneOf(["none", "log", "raise"]), "--kv-canary"),
        options(.telemetry, .oneOf(["none", "partial", "all"]), "--kv-canary-real-data"),
        options(.telemetry, .oneOf(["warn", "error"]), "--jit-monitor-mode"),
        options(.telemetry, .oneOf(["off", "server_log", "prometheus", "both"]), "--expert-balancedness-report-mode"),
        options(.telemetry, .oneOf(["full", "hash", "custom", "none"]), "--fingerprint-mode"),
        options(
            .telemetry, .any, "--oltp-traces-endpoint", "--otlp-traces-endpoint", "--otlp-service-name",
            "--trace-modules", "--log-level-http", "--uvicorn-log-level", "--crash-dump-folder",
            "--expert-distribution-recorder-mode", "--tokenizer-metrics-custom-labels-header", "--weight-version",
            "--log-requests-format", "--export-metrics-to-file-dir", "--debug-tensor-dump-output-folder",
            "--debug-tensor-dump-input-file", "--msprobe-dump-config", "--load-publish-endpoint",
            "--forward-pass-metrics-worker-id", "--forward-pass-metrics-ipc-name", "--spec-trace-dir",
            "--logging-config", "--log-config-file", "--show-hidden-metrics-for-version", "--fingerprint-value",
            "--disable-access-log-for-endpoints"),
        options(
            .telemetry, .json, "--kv-events-config", "--extra-metric-labels", "--custom-histogram-buckets",
            "--profiler-config", "--watchdog-config"),
        lists(.telemetry, count, "--debug-tensor-dump-layers"),
        lists(
            .telemetry, .any, "--bucket-time-to-first-token", "--bucket-inter-token-latency",
            "--bucket-e2e-request-latency", "--prompt-tokens-buckets", "--generation-tokens-buckets",
            "--tokenizer-metrics-allowed-custom-labels", "--log-requests-target", "--collect-detailed-traces",
            "--uvicorn-access-log-exclude-prefixes"),
        refused(
            "--per-request-spec-decode-metrics", neutral: ["none"],
            because: "/metrics has the accepted drafts, and meta_info of /generate those of a request; leave it out"),
        refused(
            flags: "--enable-per-request-metrics",
            because: "answers carry no times; /metrics has them, and meta_info of /generate; leave it out"),
    ])

    static let connections: [CompatibilityOption] = joined([
        options(
            .connection, count, "--sse-keep-alive-interval", "--h11-max-incomplete-event-size",
            "--h11-max-header-count", "--grpc-response-timeout-secs", "--http2-max-concurrent-streams",
            "--http2-initial-connection-window-size", "--smg-http-sidecar-port", "--grpc-http-sidecar-port"),
        options(.connection, .any, "--file-storage-path"),
        flags(
            .connection, "--enable-http-worker-reuseport", "--disable-fastapi-docs", "--enable-offline-docs"),
        refused(
            flags: "--smg-grpc-mode", "--grpc-mode", "--grpc", because: "there is only HTTP; leave it out"),
        refused("--grpc-port", "--sidecar", "--sidecar-args", because: "there is only HTTP; leave it out"),
        refused(flags: "--enable-http2", because: "there is only HTTP/1; put a proxy in front of the server"),
        refused("--uds", because: "give --host and --port; a proxy can listen on a socket"),
        refused(
            "--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs", "--ssl-keyfile-password", "--ssl-ciphers",
            because: "there is no TLS; put a proxy in front of the server"),
        refused("--ssl-cert-reqs", neutral: ["0"], because: "there is no TLS; put a proxy in front of the server"),
        refused(flags: "--enable-ssl-refresh", because: "there is no TLS; put a proxy in front of the server"),
        refused("--root-path", "--fastapi-root-path", neutral: [""], because: "let the proxy remove the prefix"),
        refused(
            "--allowed-methods", "--allowed-headers", neutral: ["[\"*\"]"],
            because: "pages of an allowed origin may use every route and header; leave it out"),
        refused(flags: "--allow-credentials", because: "no route uses cookies; leave it out"),
        refused("--admin-api-key", because: "there is one key, for every route; give it with --api-key"),
        refused(
            flags: "--enable-scale-out", "--tokens-only",
            because: "there are no such routes; /generate takes input_ids; leave it out"),
        refused(
            flags: "--enable-response-store", "--enable-streaming-session",
            because: "the server keeps no conversations; the prefix cache keeps what was computed of them; leave it out"
        ),
    ])
}
