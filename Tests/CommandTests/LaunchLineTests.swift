import ArgumentParser
import Foundation
import Testing
import braid

@Suite struct `A launch line` {
    private static func line(_ text: String, environment: [String: String] = [:]) throws -> LaunchLine {
        try LaunchLine(text.split(separator: " ").map(String.init), environment: environment)
    }

    private static func refusal(_ text: String, environment: [String: String] = [:]) throws -> [String] {
        let error = try #require(throws: (any Error).self) { try line(text, environment: environment) }
        return "\(error)".split(separator: "\n").map(String.init)
    }

    private static let commands = CompatibilityTable.Command.allCases.map {
        $0.rawValue.split(separator: " ").map(String.init)
    }

    /// Returns a legal value of an option.
    private static func legalValue(_ row: CompatibilityOption) -> String {
        switch row.legal {
        case .any: "x"
        case .oneOf(let values): values.last!
        case .integer(let range): "\(range.lowerBound)"
        case .number(let range): "\(range.lowerBound)"
        case .json:
            switch row.names[0] {
            case "--speculative-config": #"{"method":"mtp","num_speculative_tokens":3}"#
            case "--allowed-origins": #"["*"]"#
            case "--structured-outputs-config": #"{"reasoning_parser":"x"}"#
            case "--attention-config": #"{"use_fp4_indexer_cache":true}"#
            default: "{}"
            }
        }
    }

    private static let needed = ["serve": ["--model-path", "m"], "eval gsm8k": ["--data-path", "d"]]

    /// Parses words of a command with what it needs besides.
    private static func parse(_ command: [String], _ words: [String]) throws -> LaunchLine {
        let line = try LaunchLine(
            command + (needed[command.joined(separator: " ")] ?? []) + words, environment: [:])
        _ = try Braid.parseAsRoot(line.arguments)
        return line
    }

    /// Returns the lines of `--print-config`.
    private static func printed(_ line: LaunchLine) throws -> [String] {
        let options = try #require(CommandOptions.command(named: ["serve"]))
        return EffectiveConfiguration(of: try Braid.parseAsRoot(line.arguments), options, line.settings).lines
    }

    @Test func `a value may begin with a dash`() throws {
        let line = try Self.parse(["serve"], ["--api-key=-secret"])
        #expect(line.arguments.contains("--api-key=-secret"))
    }

    @Test(arguments: commands)
    func `accepts or refuses every option of the table, each in its way`(command: [String]) throws {
        let table = CompatibilityTable(for: command)
        let own = try #require(CommandOptions.command(named: command))
        #expect(!table.rows.isEmpty)
        for row in table.rows {
            for name in row.names {
                #expect(own[name] == nil, "\(name) is an option of the command itself")
                let words = [name] + (row.arity == .none ? [] : [Self.legalValue(row)])
                switch row.meaning {
                case .noEffect:
                    #expect(try Self.parse(command, words).startLines == ["has no effect here: \(name)"])
                case .always:
                    #expect(try Self.parse(command, words).startLines == [])
                case .same(let other, _):
                    // The other engine's values are those of the option of Braid; some are numbers.
                    let candidates = [Self.legalValue(row), "4", "auto", "braid", "random", "NEXTN", "{}"]
                    let line = candidates.lazy.compactMap { value in
                        try? Self.parse(command, [name] + (row.arity == .none ? [] : [value]))
                    }.first
                    let option = try #require(other.split { " =".contains($0) }.first.map(String.init))
                    #expect(line?.settings.contains { $0.option.names.contains(option) } == true, "\(name)")
                case .refused(let neutral, _):
                    let refused = [name] + (row.arity == .none ? [] : ["something"])
                    let error = #expect(throws: (any Error).self) { try Self.parse(command, refused) }
                    #expect(error.map { "\($0)".hasPrefix("\(name) is not supported: ") } == true, "\(name)")
                    for value in neutral { #expect(try Self.parse(command, ["\(name)=\(value)"]).startLines == []) }
                }
            }
        }
    }

    @Test(arguments: commands) func `refuses values that are not legal, with those that are`(command: [String]) throws {
        for row in CompatibilityTable(for: command).rows {
            if case .refused = row.meaning { continue }
            let name = row.names[0]
            let (value, expected): (String, String)
            switch row.legal {
            case .any: continue
            case .oneOf(let values): (value, expected) = ("mystery", "legal: \(values.joined(separator: ", "))")
            case .integer(let range): (value, expected) = ("\(range.upperBound)0", "and \(range.upperBound)")
            case .number(let range): (value, expected) = ("-7", "between \(range.lowerBound)")
            case .json: (value, expected) = ("{", "is not JSON")
            }
            let error = try #require(throws: (any Error).self) { try Self.parse(command, ["\(name)=\(value)"]) }
            #expect("\(error)".hasPrefix("\(name): ") && "\(error)".contains(expected), "\(error)")
        }
    }

    @Test(arguments: [
        // SGLang, prefill with context parallelism.
        """
        serve --model-path m --trust-remote-code --tp 8 --attn-cp-size 8 --enable-nsa-prefill-context-parallel \
        --nsa-prefill-cp-mode round-robin-split --page-size 64 --mem-fraction-static 0.85 --chunked-prefill-size 32768 \
        --max-running-requests 32 --cuda-graph-bs 1 2 4 8 16 --disable-overlap-schedule --attention-backend nsa \
        --nsa-prefill-backend flashmla_sparse --nsa-decode-backend flashmla_kv --kv-cache-dtype bfloat16 \
        --enable-metrics --enable-cache-report --watchdog-timeout 3600 --host 0.0.0.0 --port 30000
        """,
        // SGLang on NPUs.
        """
        serve --model-path m --device npu --attention-backend ascend --quantization w8a8_int8 --moe-a2a-backend deepep \
        --deepep-mode auto --disable-cuda-graph --disable-radix-cache --max-prefill-tokens 68000 --dtype bfloat16 \
        --disaggregation-mode null --disaggregation-transfer-backend ascend --num-reserved-decode-tokens 64 \
        --load-balance-method round_robin --dist-timeout 3600 --skip-server-warmup --collect-tokens-histogram \
        --enable-request-time-stats-logging --decode-log-interval 1 --log-level info --random-seed 7 \
        --model-loader-extra-config {"enable_multithread_load":true,"num_threads":8} --tokenizer-path m
        """,
        // vLLM.
        """
        serve m --served-model-name s --max-model-len 4096 --gpu-memory-utilization 0.9 --enable-prefix-caching \
        --tokenizer-mode deepseek_v4 --tool-call-parser deepseek_v4 --reasoning-parser deepseek_v4 --block-size 64 \
        --enable-auto-tool-choice -tp 8 --max-num-seqs 16 --max-num-batched-tokens 8192 --enforce-eager \
        --speculative-config {"method":"deepseek_mtp","num_speculative_tokens":1} --seed 3 --swap-space 4 \
        --no-enable-log-requests --disable-log-stats --enable-expert-parallel --compilation-config {"level":3}
        """,
        "bench serving --backend sglang --dataset-name random --random-input-len 64 --random-output-len 8 --num-prompt 4",
        "bench serving --backend vllm --tokenizer x --num-prompts 4 --random-range-ratio 1 --request-rate inf",
        "eval gsm8k --data-path d --num-shots 5 --num-questions 200 --max-new-tokens 512 --parallel 128",
    ])
    func `of other engines is parsed`(text: String) throws {
        _ = try Braid.parseAsRoot(try Self.line(text).arguments)
    }

    @Test func `gives the members of vLLM's JSON by dotted names`() throws {
        let line = try Self.line(
            "serve m --speculative-config.method mtp --compilation-config.level=3 "
                + "--speculative-config.num_speculative_tokens 3")
        #expect(
            line.arguments.suffix(4) == ["--speculative-algorithm", "NEXTN", "--speculative-num-steps", "3"])
        #expect(line.withoutEffect == ["--compilation-config"])
        for (text, words) in [
            ("--speculative-config.num_speculative_tokens 1", "\"method\": \"mtp\""),
            ("--speculative-config.method", "--speculative-config.method needs a value"),
            ("--compilation-config.level 1 --compilation-config.level 2", "is given twice"),
            ("--page-size.x 1", "unknown option --page-size.x"),
        ] {
            let lines = try Self.refusal("serve m \(text)")
            #expect(lines.count == 1 && lines[0].contains(words), "\(lines)")
        }
    }

    @Test func `gives index keys in FP4 as vLLM's member of a JSON option`() throws {
        let option = "--enable-deepseek-v4-fp4-indexer"
        for text in [
            #"--attention-config {"use_fp4_indexer_cache":true}"#, #"-ac {"use_fp4_indexer_cache":true,"backend":"X"}"#,
            "--attention-config.use_fp4_indexer_cache true", "--attention-config.use_fp4_indexer_cache=true",
        ] {
            #expect(try Self.line("serve m \(text)").arguments.last == option, "\(text)")
        }
        for text in [
            "--attention-config {}", #"--attention-config {"use_fp4_indexer_cache":false}"#,
            #"-ac {"use_fp4_indexer_cache":null}"#, "--attention-config.use_fp4_indexer_cache false",
        ] {
            #expect(try !Self.line("serve m \(text)").arguments.contains(option), "\(text)")
        }
        #expect(
            try Self.refusal("serve m --attention-config []")[0].hasPrefix("--attention-config: it is not an object"))
        let lines = try Self.refusal("serve m --attention-config.use_fp4_indexer_cache 1")
        #expect(lines == ["--attention-config: use_fp4_indexer_cache is neither true nor false"])
    }

    @Test func `gives origins of pages as vLLM's list`() throws {
        let line = try LaunchLine(
            ["serve", "m", "--allowed-origins", #"["https://a.example", "*"]"#], environment: [:])
        #expect(line.arguments.suffix(4) == ["--cors-allow-origin", "https://a.example", "--cors-allow-origin", "*"])
        #expect(try Self.refusal("serve m --allowed-origins [1]")[0].hasPrefix("--allowed-origins: it is not a list"))
        #expect(try Self.refusal(#"serve m --allowed-origins "a""#)[0].hasPrefix("--allowed-origins: it is not a list"))
    }

    @Test func `gives several names of the model, and several keys`() throws {
        let line = try Self.parse(["serve"], ["--served-model-name", "a", "b", "--api-key", "k", "--api-key=l"])
        let lines = try Self.printed(line)
        #expect(lines.contains("served-model-name: [a, b]  # command line"))
        #expect(lines.contains("api-key: [(secret), (secret)]  # command line"))
        for words in [["--api-key", "k", "l"], ["--api-key=k", "--api_key", "l"]] {
            #expect(try Self.printed(try Self.parse(["serve"], words)).contains { $0.contains("[(secret), (secret)]") })
        }
    }

    @Test func `gives several keys by variables with numbers`() throws {
        let line = try Self.line(
            "serve m", environment: ["BRAID_API_KEY": "k", "BRAID_API_KEY_2": "l", "BRAID_API_KEY_12": "n"])
        #expect(line.startLines.isEmpty && Set(line.settings.dropFirst().map { $0.words[1] }) == ["k", "l", "n"])
        // The command line replaces all of them, and an option that has one value has no second one.
        let given = try Self.line("serve m --api-key x", environment: ["BRAID_API_KEY": "k", "BRAID_API_KEY_2": "l"])
        #expect(given.settings.flatMap(\.words) == ["--model-path", "m", "--api-key", "x"])
        for name in ["BRAID_PORT_2", "BRAID_API_KEY_1", "BRAID_API_KEY_", "BRAID_PRELOAD_2"] {
            #expect(try Self.line("serve m", environment: [name: "1"]).startLines.count == 1, "\(name)")
        }
    }

    @Test func `reads the variable with which vLLM's users protect a server`() throws {
        func words(_ text: String, _ more: [String: String] = [:]) throws -> [String] {
            let line = try Self.line(text, environment: more.merging(["VLLM_API_KEY": "v"]) { own, _ in own })
            return line.settings.flatMap(\.words)
        }
        #expect(try words("serve m") == ["--model-path", "m", "--api-key", "v"])
        #expect(try words("serve m --api-key x") == ["--model-path", "m", "--api-key", "x"])
        #expect(try words("serve m", ["BRAID_API_KEY": "k"]) == ["--model-path", "m", "--api-key", "k"])
        #expect(try words("serve m", ["VLLM_API_KEY": ""]) == ["--model-path", "m"])
        // A router's key is its own.
        #expect(try words("router").isEmpty)
    }

    @Test func `gives a list no word that was not after its name`() throws {
        let line = try Self.line("serve m extra --api-key k")
        #expect(line.arguments == ["serve", "extra", "--model-path", "m", "--api-key", "k"])
        #expect(throws: (any Error).self) { try Braid.parseAsRoot(line.arguments) }
        #expect(try Self.line("serve m -- extra --api-key k").arguments.suffix(4) == ["--", "extra", "--api-key", "k"])
    }

    @Test(arguments: [("auto", nil), ("-1", nil), ("128k", 128_000), ("128K", 131_072), ("4096", 4096)])
    func `gives the longest request as vLLM does`(text: String, expected: Int?) throws {
        let lines = try Self.printed(try Self.parse(["serve"], ["--max-model-len", text]))
        let value = expected.map { "\($0)" } ?? "auto"
        #expect(lines.contains("context-length: \(value)  # command line"), "\(lines)")
    }

    @Test(arguments: [
        ("fp8", "fp8_e4m3"), ("fp8_ds_mla", "fp8_e4m3"), ("fp8_e4m3", "fp8_e4m3"), ("bf16", "bfloat16"),
        ("fp8_e5m2", nil), ("nvfp4", nil),
    ])
    func `gives the type of the cache by other engines' names`(text: String, expected: String?) throws {
        let words = ["--kv-cache-dtype", text]
        guard let expected else {
            let error = try #require(throws: (any Error).self) { try Self.parse(["serve"], words) }
            let message = Braid.fullMessage(for: error)
            #expect(message.contains("--kv-cache-dtype") && message.contains("fp8_e4m3"), "\(message)")
            return
        }
        let lines = try Self.printed(try Self.parse(["serve"], words))
        #expect(lines.contains("kv-cache-dtype: \(expected)  # command line"), "\(lines)")
    }

    @Test(arguments: ["serve m", "verify m", "plan"], ["half", "float16", "fp16"])
    func `says what to give in place of FP16`(command: String, value: String) throws {
        let lines = try Self.refusal("\(command) --dtype \(value)")
        #expect(lines.count == 1 && lines[0].hasPrefix("--dtype: nothing here computes in FP16; "), "\(lines)")
        #expect(lines[0].contains("a checkpoint in F16 is computed in float32"))
        #expect(lines[0].hasSuffix("legal: 'auto', 'float32', 'bfloat16', 'int8', 'int8-float32'"))
    }

    @Test func `names what has no effect once, in one line`() throws {
        let line = try Self.line("serve m --attention-backend nsa --cuda-graph-bs 1 2 4 --enable-metrics --tp 2")
        #expect(line.startLines == ["has no effect here: --attention-backend, --cuda-graph-bs"])
        #expect(line.arguments == ["serve", "--model-path", "m", "--tp", "2"])
    }

    @Test func `reports all problems at once, and unknown options with the nearest names`() throws {
        let lines = try Self.refusal(
            "serve m --page-sise 32 --frobnicate 7 --attention-backend best --cuda-graph-bs two --lora-paths a b --prot=1"
        )
        #expect(lines.count == 4)
        let unknown = "unknown options --page-sise (nearest: --page-size), --frobnicate, --prot (nearest: --port)"
        #expect(lines.contains(unknown), "\(lines)")
        #expect(lines.contains { $0.hasPrefix("--lora-paths is not supported") })
        #expect(lines.contains { $0.hasPrefix("--attention-backend: 'best' is not legal; legal: nsa, ") })
        #expect(try Self.refusal("generate --model m --promt x") == ["unknown option --promt (nearest: --prompt)"])
        #expect(try Self.refusal("serve --page-size --tp 2") == ["--page-size needs a value"])
    }

    @Test func `means with underscores what it means with dashes`() throws {
        let line = try Self.line("serve m --page_size 32 --attention_backend nsa")
        #expect(line.settings.last?.words == ["--page-size", "32"] && line.withoutEffect == ["--attention_backend"])
    }

    @Test(arguments: ["serve", "chat", "generate", "inspect", "verify", "plan", "tune", "bench prefill"])
    func `may name the model by its first word`(command: String) throws {
        let expected = "\(command) --model-path m".split(separator: " ").map(String.init)
        #expect(try Self.line("\(command) m").arguments == expected)
    }

    @Test(arguments: ["verify --only cp4 tp2 --model-path m", "generate m --prompt x --model-path n"])
    func `may not name the model twice`(text: String) throws {
        let lines = try Self.refusal(text)
        #expect(lines.count == 1 && lines[0].contains("the model is given twice"), "\(lines)")
    }

    @Test(arguments: [
        ("serv m", "there is no command 'serv'; the nearest is serve; legal: serve, router, chat,"),
        ("bench prefil", "there is no command 'prefil'; the nearest is prefill; legal: "),
        ("xyzzy", "there is no command 'xyzzy'; legal: serve, router, chat,"),
    ])
    func `of no command is refused, with the nearest name`(text: String, message: String) throws {
        let lines = try Self.refusal(text)
        #expect(lines.count == 1 && lines[0].hasPrefix(message), "\(lines)")
    }

    @Test func `of a command for help is left alone`() throws {
        for text in ["serve --help --nonsense", "--version", "help serve", "bench", ""] {
            #expect(try Self.line(text).arguments == text.split(separator: " ").map(String.init))
        }
    }

    // MARK: - Sources

    private static func file(_ text: String) throws -> String {
        let path = NSTemporaryDirectory() + "braid-config-\(UUID().uuidString)"
        try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        return path
    }

    @Test func `takes values from itself, the environment and a file, in this order`() throws {
        let path = try Self.file("page-size: 16\ntp-size: 2 # two\nattn_cp_size: 2\npreload: true\nblock-size: 8\n")
        defer { try? FileManager.default.removeItem(atPath: path) }
        let line = try Self.line(
            "serve m --config \(path) --tp 4", environment: ["BRAID_ATTN_CP_SIZE": "4", "BRAID_PRELOAD": "false"])
        let origins = Dictionary(
            line.settings.map { ($0.option.name, $0.origin) }, uniquingKeysWith: { first, _ in first })
        #expect(origins["--tp-size"] == .commandLine)
        #expect(origins["--attn-cp-size"] == .environment("BRAID_ATTN_CP_SIZE"))
        #expect(origins["--page-size"] == .file(path, line: 1))
        #expect(line.arguments.suffix(4) == ["--page-size", "16", "--page-size", "8"])
        for variable in ["SGLANG_PP_LAYER_PARTITION", "VLLM_PP_LAYER_PARTITION"] {
            let stages = try Self.line("serve m", environment: [variable: "3,1"]).settings.last
            #expect(stages?.origin == .environment(variable) && stages?.words == ["--pp-layer-partition", "3,1"])
        }
        #expect(try Self.line("serve m", environment: ["VLLM_PP_LAYER_PARTITION": "a"]).settings.count == 1)
        #expect(!line.arguments.contains("--preload") && !line.arguments.contains("2"))
    }

    @Test func `reads lists, quotes, flags and JSON of a file`() throws {
        let yaml = """
            ---
            # A comment.
            model-path: "a # b"
            allowed-host: [x, 'y']
            enable-metrics: true
            cuda-graph-bs:
              - 1
              - 2
            preload: yes
            served-model-name: 'it''s'
            """
        let json = """
            {"model-path": "a # b", "allowed-host": ["x", "y"], "enable-metrics": true, "cuda-graph-bs": [1, 2],
             "preload": true, "served-model-name": "it's"}
            """
        for text in [yaml, json] {
            let path = try Self.file(text)
            defer { try? FileManager.default.removeItem(atPath: path) }
            let line = try Self.line("serve --config=\(path)")
            #expect(
                line.arguments.dropFirst(3) == [
                    "--model-path", "a # b", "--allowed-host", "x", "--allowed-host", "y", "--preload",
                    "--served-model-name", "it's",
                ])
            #expect(line.withoutEffect == ["--cuda-graph-bs"])
        }
    }

    @Test(arguments: [
        ("page-sise: 4", "unknown option --page-sise (nearest: --page-size)"), ("page-size:", "page-size has no value"),
        ("page-size: [1, 2]", "takes one value"), ("tp-size: {a: 1}", "tp-size takes a value, no map"),
        ("  page-size: 4", "indented"),
        ("- 4", "no name before it"), ("page-size", "no name and colon"), ("page-size: 1\npage_size: 2", "given twice"),
        ("config: other", "cannot name another"), ("page-size: [1, {a: 2}]", "has an item"), ("{", "JSON"),
        ("preload: perhaps", "neither true nor false"), ("page-size: &a 4", "not a plain value"),
    ])
    func `refuses a file that it cannot follow, with the place`(text: String, words: String) throws {
        let path = try Self.file(text)
        defer { try? FileManager.default.removeItem(atPath: path) }
        let lines = try Self.refusal("serve m --config \(path)")
        #expect(lines.contains { $0.contains(words) && $0.contains(path) }, "\(lines)")
    }

    @Test(arguments: [
        ("page-size: 64\n\n# two\npreload: perhaps", "4: --preload: 'perhaps' is neither"),
        ("page-size: 64\nport: 1\npage_size: 2", "3: page_size is given twice"),
        ("port: 1\npage-sise:\n- 4", "2: unknown option --page-sise"),
        ("{\n \"port\": 1,\n \"preload\": \"perhaps\"}", "3: --preload: 'perhaps' is neither"),
        (
            "{\"port\": 1, \"allowed-host\":\n [\"a\\\"\\\\\",\n \"x\"],\n\"page-size\": {}}",
            "4: page-size takes a value"
        ),
        (
            "{\n\"compilation-config\": {\"a\": {\"b\": [1]}}, \"port\":\n1,\n\n\"page-sise\": 4}",
            "5: unknown option --page-sise"
        ),
        ("\n{\"port\": 1,\n\"page-size\": 2, \"page_size\": 2}", "3: page_size is given twice"),
    ])
    func `refuses a value of a file with the line of its key`(text: String, words: String) throws {
        let path = try Self.file(text)
        defer { try? FileManager.default.removeItem(atPath: path) }
        let lines = try Self.refusal("serve m --config \(path)")
        #expect(lines.count == 1 && lines[0].hasPrefix("\(path):\(words)"), "\(lines)")
    }

    @Test func `says where the options of an error come from, except those of the command line`() throws {
        let path = try Self.file("{\"page-size\": 3,\n\"tp-size\": 2, \"port\": 7}")
        defer { try? FileManager.default.removeItem(atPath: path) }
        let line = try Self.line("serve m --config \(path) --port 1", environment: ["BRAID_MEM_FRACTION_STATIC": "7"])
        for (message, origin) in [
            ("the value '3' is invalid for '--page-size <page-size>'", "--page-size is from \(path):1"),
            ("--tp does not divide; see --port and --page-sizes", "--tp-size is from \(path):2"),
            ("--mem-fraction-static: x", "--mem-fraction-static is from environment BRAID_MEM_FRACTION_STATIC"),
        ] { #expect(line.withOrigins(message) == "\(message) (\(origin))") }
        #expect(line.withOrigins("--port is taken") == "--port is taken")
        // ArgumentParser refuses some values, the command others.
        for (text, option) in [
            ("port: 1\npage-size: x", "page-size"), ("\nserved-model-name: ''", "served-model-name"),
        ] {
            let path = try Self.file(text)
            defer { try? FileManager.default.removeItem(atPath: path) }
            let run = try Program.run(["serve", Program.demo, "--config", path])
            let words = "(--\(option) is from \(path):2)"
            #expect(run.status != 0 && run.errors.contains { $0.hasSuffix(words) }, "\(run.errors)")
        }
    }

    @Test func `reads a file with the line ends of another system, and flags that it turns off`() throws {
        let path = try Self.file(
            "page-size: 32\r\nenable-prefix-caching: false\r\n\r\nallowed-host:\r\n- a\r\ntrust-remote-code: false\r\n")
        defer { try? FileManager.default.removeItem(atPath: path) }
        let line = try Self.line("serve m --config \(path)")
        #expect(
            line.arguments.dropFirst(5) == ["--page-size", "32", "--disable-radix-cache", "--allowed-host", "a"],
            "\(line.arguments)")
        #expect(line.startLines.isEmpty)
    }

    @Test(arguments: [
        ("enable-prefix-caching", "disable-radix-cache: true", ["--disable-radix-cache"]),
        ("enable-chunked-prefill", "chunked-prefill-size: -1", ["--chunked-prefill-size=-1"]),
    ])
    func `turns on what a source of lower precedence turns off`(name: String, off: String, words: [String]) throws {
        let variable = "BRAID_" + name.uppercased().replacing("-", with: "_")
        for text in ["\(name): false", "no-\(name): true", off] {
            let path = try Self.file(text)
            defer { try? FileManager.default.removeItem(atPath: path) }
            func arguments(_ more: String, _ environment: [String: String] = [:]) throws -> [String] {
                let line = try Self.line("serve m --config \(path)\(more)", environment: environment)
                return Array(line.arguments.dropFirst(5))
            }
            #expect(try arguments("") == words, "\(text)")
            #expect(try arguments("", [variable: "false"]) == words, "\(text)")
            #expect(try arguments(" --\(name)") == [], "\(text)")
            #expect(try arguments("", [variable: "true"]) == [], "\(text)")
            #expect(try arguments(" --\(name)", [variable: "false"]) == [], "\(text)")
            #expect(try arguments(" --\(name)=false", [variable: "true"]) == words, "\(text)")
        }
    }

    @Test(arguments: [
        ("enable-log-requests", "--no-enable-log-requests"), ("access-log", "--no-enable-log-requests"),
        ("enable-log-requests", "--disable-log-requests"), ("log-requests", "--enable-log-requests=false"),
        ("log-requests", "--log-requests=false"), ("access-log", "--access-log=false"),
        ("no-enable-prefix-caching", "--no-enable-prefix-caching=false"),
        ("no-enable-prefix-caching", "--enable-prefix-caching"), ("enable-deepep-moe", "--enable-deepep-moe=false"),
        ("no-enable-chunked-prefill", "--no-enable-chunked-prefill=false"), ("preload", "--preload=false"),
    ])
    func `turns off what a source of lower precedence, or a word before, turns on`(name: String, off: String) throws {
        let path = try Self.file("\(name): true")
        defer { try? FileManager.default.removeItem(atPath: path) }
        let on = try Self.line("serve m --config \(path)")
        #expect(on.arguments.count > 5)
        let variable = "BRAID_" + name.uppercased().replacing("-", with: "_")
        for line in [
            try Self.line("serve m --config \(path) \(off)"),
            try Self.line("serve m --config \(path) --\(name) \(off)"),
            try Self.line("serve m --config \(path) \(off)", environment: [variable: "true"]),
        ] {
            #expect(line.arguments == Array(on.arguments.prefix(5)), "\(line.arguments)")
            #expect(line.startLines.isEmpty)
        }
        // The last word counts.
        #expect(try Self.line("serve m --config \(path) \(off) --\(name)").arguments == on.arguments)
    }

    @Test func `keeps a size of chunks where it is told to compute prompts in chunks`() throws {
        let path = try Self.file("chunked-prefill-size: 512")
        defer { try? FileManager.default.removeItem(atPath: path) }
        let line = try Self.line("serve m --config \(path) --enable-chunked-prefill")
        #expect(line.arguments.dropFirst(5) == ["--chunked-prefill-size", "512"])
    }

    @Test func `takes options of other engines, and other names of its own, from the environment`() throws {
        let line = try Self.line(
            "serve m",
            environment: [
                "BRAID_ATTENTION_BACKEND": "nsa", "BRAID_TP": "4", "BRAID_DISABLE_CUDA_GRAPH": "1",
                "BRAID_ENABLE_TORCH_COMPILE": "false",
            ])
        #expect(Set(line.withoutEffect) == ["--attention-backend", "--disable-cuda-graph"])
        #expect(line.settings.contains { $0.words == ["--tp-size", "4"] && $0.origin == .environment("BRAID_TP") })
        #expect(line.warnings.isEmpty)
        let refusal = try Self.refusal("serve m", environment: ["BRAID_SKIP_TOKENIZER_INIT": "1"])
        #expect(refusal.contains { $0.contains("environment BRAID_SKIP_TOKENIZER_INIT: ") }, "\(refusal)")
    }

    @Test func `warns of a variable that names no option`() throws {
        let line = try Self.line("serve m", environment: ["BRAID_PAGE_SISE": "4", "PAGE_SIZE": "8"])
        let warning = "environment BRAID_PAGE_SISE: there is no such option; the nearest is BRAID_PAGE_SIZE"
        #expect(line.startLines == [warning])
        #expect(line.arguments == ["serve", "--model-path", "m"])
    }

    @Test func `prints every value with its origin, in a form that gives the same values again`() throws {
        let given = try Self.line(
            "serve m --tp 4 --allowed-host a --allowed-host b --api-key hidden --pp-layer-partition 3,1",
            environment: ["BRAID_PAGE_SIZE": "32"])
        let options = try #require(CommandOptions.command(named: ["serve"]))
        let lines = try Self.printed(given)
        #expect(lines.count == options.options.count - 4)
        for expected in [
            "tp-size: [4]  # command line", "page-size: 32  # environment BRAID_PAGE_SIZE", "port: 30000  # default",
            "allowed-host: [a, b]  # command line", "api-key: [(secret)]  # command line", "preload: false  # default",
            "# trace: unset  # default", "pp-layer-partition: '3,1'  # command line",
            "kv-cache-dtype: auto  # default", "log-level: info  # default",
        ] { #expect(lines.contains(expected), "\(expected)") }
        #expect(!lines.joined().contains("hidden"))
        let path = try Self.file(lines.joined(separator: "\n"))
        defer { try? FileManager.default.removeItem(atPath: path) }
        let again = try Self.printed(try Self.line("serve --config \(path)"))
        func values(_ lines: [String]) -> [String] { lines.map { String($0.split(separator: "  # ")[0]) } }
        #expect(values(again) == values(lines))
    }
}
