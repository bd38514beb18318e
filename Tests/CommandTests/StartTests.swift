import Foundation
import Tensors
import TestSupport
import Testing

/// `braid serve` as a process, with what cannot be started: one line says what, where and what to try, and nothing else
/// is printed.
@Suite(.timeLimit(.minutes(15))) struct `The start of a server` {
    /// Requires that the server does not start, and returns its one line.
    private static func refusal(
        _ arguments: [String], environment: [String: String] = [:], sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> String {
        let run = try Program.run(["serve", "--port", "0"] + arguments, environment: environment)
        #expect(
            run.status != 0 && run.output.isEmpty && run.errors.count == 1, "\(run.errors)",
            sourceLocation: sourceLocation)
        return run.errors.first ?? ""
    }

    /// A level of instructions that this processor lacks.
    private static let missingLevel = Kernels.Level.allCases.first { Kernels($0) == nil }!.rawValue

    /// A directory with the demo model's files, by symbolic links.
    private final class Checkpoint {
        let path = NSTemporaryDirectory() + "braid-start-\(UUID().uuidString)"

        init(_ names: [String]? = nil) throws {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            for name in try names ?? FileManager.default.contentsOfDirectory(atPath: Program.demo) {
                try FileManager.default.createSymbolicLink(
                    atPath: path + "/" + name, withDestinationPath: Program.demo + "/" + name)
            }
        }

        deinit { try? FileManager.default.removeItem(atPath: path) }

        func write(_ name: String, _ text: String) throws {
            try? FileManager.default.removeItem(atPath: path + "/" + name)
            try Data(text.utf8).write(to: URL(fileURLWithPath: path + "/" + name))
        }
    }

    private static let pointer = """
        version https://git-lfs.github.com/spec/v1
        oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393
        size 12345

        """

    @Test(arguments: [
        ("model.safetensors", pointer, "pointer of Git LFS"), ("config.json", pointer, "pointer of Git LFS"),
        ("tokenizer.json", pointer, "pointer of Git LFS"), ("config.json", "{\"model_type\": \"llama\"}", "\"llama\""),
        ("config.json", "{", "config.json"), ("tokenizer.json", "{}", "tokenizer.json"),
        ("model.safetensors.index.json", "{\"weight_map\": {}}", "names no tensor"),
        ("generation_config.json", "{\"top_p\": 7}", "top_p"), ("model.safetensors", "", "0 bytes"),
    ])
    func `names the file that is wrong`(name: String, text: String, words: String) throws {
        let checkpoint = try Checkpoint()
        try checkpoint.write(name, text)
        let line = try Self.refusal(["--model-path", checkpoint.path])
        #expect(line.hasPrefix("Error: ") && line.contains(words) && line.contains(name), "\(line)")
    }

    @Test(arguments: ["tokenizer.json", "config.json", "model-next-token.safetensors"])
    func `names the file that is missing`(name: String) throws {
        let checkpoint = try Checkpoint()
        try FileManager.default.removeItem(atPath: checkpoint.path + "/" + name)
        #expect(try Self.refusal([checkpoint.path]).contains(name))
    }

    @Test func `says what a directory holds instead of a checkpoint`() throws {
        let empty = try Checkpoint([])
        #expect(try Self.refusal([empty.path]).contains("is an empty directory"))
        try empty.write("model-q4.gguf", "GGUF")
        #expect(try Self.refusal([empty.path]).contains("the GGUF file model-q4.gguf, which is not read"))
        #expect(try Self.refusal([empty.path + "/model-q4.gguf"]).contains("is a GGUF file"))
        let pickled = try Checkpoint(["config.json", "tokenizer.json"])
        try pickled.write("pytorch_model.bin", "x")
        #expect(try Self.refusal([pickled.path]).contains("holds no .safetensors file"))
        #expect(try Self.refusal(["/nowhere/model"]).contains("/nowhere/model: there is no such directory"))
        for words in [["--model-path", ""], ["--model-path="], [""]] {
            #expect(try Self.refusal(words).contains("--model-path: is empty; give the directory of a model"))
        }
        let line = try Self.refusal(["someone/model"], environment: ["HF_HUB_CACHE": empty.path])
        #expect(line.contains("no such model in Hugging Face's cache \(empty.path)"))
        #expect(line.contains("hf download someone/model"))
        for address in ["https://huggingface.co/someone/model", "hf.co/someone/model/tree/main"] {
            let line = try Self.refusal([address], environment: ["HF_HUB_CACHE": empty.path])
            #expect(line.contains("no such model") && line.hasSuffix("hf download someone/model"), "\(line)")
        }
        #expect(try Self.refusal(["someone/model-GGUF:Q4_K_M"]).contains("names a GGUF file of a model"))
    }

    @Test(arguments: ["tokenizer.json", "tokenizer_config.json"])
    func `names the directory of a tokenizer that is damaged, and says what to do`(name: String) throws {
        let checkpoint = try Checkpoint()
        try checkpoint.write(name, "nonsense")
        let line = try Self.refusal([checkpoint.path])
        #expect(line.contains("\(checkpoint.path): \(name) is not valid at"), "\(line)")
        #expect(line.contains("from the released checkpoint, or give its directory as --tokenizer-path"), "\(line)")
    }

    @Test func `names both sizes and both files if the tokenizer has more ids than the model`() throws {
        let checkpoint = try Checkpoint()
        let config = try String(contentsOfFile: Program.demo + "/config.json", encoding: .utf8)
        try checkpoint.write("config.json", config.replacing("\"vocab_size\": 1536", with: "\"vocab_size\": 1500"))
        let line = try Self.refusal([checkpoint.path])
        #expect(line.contains("\(checkpoint.path)/tokenizer.json has 1536 ids"), "\(line)")
        #expect(line.contains("\(checkpoint.path)/config.json says vocab_size 1500"), "\(line)")
        #expect(line.contains("36 tokens have no row") && line.contains("--tokenizer-path"), "\(line)")
    }

    @Test func `names a prompt file that cannot be read`() throws {
        let binary = try Checkpoint([])
        try Data([0xFF, 0xFE, 0x00]).write(to: URL(fileURLWithPath: binary.path + "/prompt"))
        for (path, reason) in [
            ("/nowhere/prompt", "No such file"), (binary.path + "/prompt", "is not UTF-8 text"),
            (binary.path, "is not a regular file; give a file"), ("/dev/null", "is not a regular file"),
        ] {
            let run = try Program.run(["generate", Program.demo, "--prompt-file", path])
            #expect(run.status != 0 && run.errors.count == 1, "\(run.errors)")
            #expect(run.errors.first?.contains("--prompt-file: \(path)") == true, "\(run.errors)")
            #expect(run.errors.first?.contains(reason) == true, "\(run.errors)")
        }
    }

    @Test(arguments: [
        ("--tool-call-parser glm47", "--tool-call-parser"), ("--tp-size 2 --attn-cp-size 3", "attn_cp_size"),
        ("--context-length 999999999", "--context-length"), ("--page-size 48", "--page-size"),
        ("--dtype float16", "'auto', 'float32'"), ("--tokenizer-path=", "--tokenizer-path is empty"),
        ("--quantization fp8", "--quantization"),
        ("--dtype int8", "--dtype: int8 is for"), ("--quantization w8a8_int8", "--quantization"),
        ("--kernels \(missingLevel)", missingLevel),
        ("--trace /nowhere/trace", "/nowhere/trace"), ("--tokenizer-path /nowhere", "/nowhere/tokenizer.json"),
        ("--mem-fraction-static 2", "--mem-fraction-static"), ("--speculative-num-steps 2", "--speculative-algorithm"),
        ("--nnodes 2 --node-rank 5", "--node-rank: 5"),
        ("--nnodes 2", "--nnodes: 1 rank cannot be divided"), ("--nnodes 2 --tp 4", "on the first host, run:"),
        ("--nnodes 3 --tp 4", "--nnodes: 4 ranks cannot be divided"), ("--api-key ä", "--api-key"),
        ("--api-key a ä", "--api-key"),
        ("--max-logprobs -2", "--max-logprobs"), ("--seed -1", "between 0 and 18446744073709551615"),
        ("--random-seed 100000000000000000000", "the nearest legal value is 18446744073709551615"),
        ("--prefix-cache-size 1GiB", "--prefix-cache-size needs --prefix-cache-dir"),
        ("--prefix-cache-dir x --disable-radix-cache", "--prefix-cache-dir: the prefix cache is turned off"),
        ("--prefix-cache-dir x --prefix-cache-size 9kB", "--prefix-cache-dir: 9000 bytes hold no block"),
        ("--prefix-cache-dir /nowhere/x", "--prefix-cache-dir: /nowhere/x cannot be created"),
        (
            "--prefix-cache-dir x --disaggregation-mode decode --disaggregation-prefill 127.0.0.1:9",
            "give it to the prefill servers"
        ),
    ])
    func `names the option that is wrong`(options: String, expected: String) throws {
        let words = ["serve", "--port", "0", Program.demo] + options.split(separator: " ").map(String.init)
        let errors = try Program.run(words).errors
        #expect(errors.first?.contains(expected) == true, "\(errors)")
        #expect(!errors.contains { $0.contains("listening") || $0.contains("Cancellation") || $0.contains("ready") })
    }

    @Test(arguments: [
        (
            "serve --port 0", "--tp-size 1000000000 --dp-size 1000000000",
            "between 0 and 64; the nearest legal value is 64"
        ),
        ("inspect", "--attn-dp-size 1000000000 --attn-cp-size 1000000000", "the nearest legal value is 64"),
        ("inspect", "--attn-dp-size 64 --attn-cp-size 64", "it needs 4096 ranks, and 64 is the most"),
        ("verify", "--pp-size 99999999999999999999", "the nearest legal value is 64"),
        ("verify", "--only dp1024", "1024 ranks, and 64 is the most"),
        ("verify", "--max-ranks 65", "the nearest legal value is 64"),
        ("plan", "--hardware h20-141x1000000000", "1024"),
    ])
    func `names the most ranks there may be`(command: String, sizes: String, expected: String) throws {
        let words = "\(command) --model-path \(Program.demo) \(sizes)".split(separator: " ").map(String.init)
        let run = try Program.run(words)
        #expect(run.status != 0 && run.errors.first?.contains(expected) == true, "\(run.errors)")
    }

    @Test(arguments: [
        ("bench decode", "--batch 4294967297", "between 1 and 65536; the nearest legal value is 65536"),
        ("bench decode", "--batch 1,5M", "between 1 and 65536; the nearest legal value is 65536"),
        ("bench layer", "--batch 2147483648", "between 1 and 65536; the nearest legal value is 65536"),
        ("bench prefill", "--lengths 2147483648", "between 1 and 2147483647"),
        // As many tokens as a cache never has, whatever the machine's memory.
        ("bench decode", "--batch 65536 --lengths 32700", "65536 requests of 32734 positions: --max-total-tokens"),
    ])
    func `of a benchmark names the most that it may measure`(command: String, sizes: String, expected: String) throws {
        let words = "\(command) --model-path \(Program.demo) \(sizes)".split(separator: " ").map(String.init)
        let run = try Program.run(words)
        #expect(run.status != 0 && run.errors.first?.contains(expected) == true, "\(run.errors)")
    }

    @Test(arguments: [["--served-model-name", "a", "m"], ["--api-key", "k", "m"]])
    func `says which option may have taken the model for one of its values`(words: [String]) throws {
        let line = try Self.refusal(words)
        let name = words[0].prefix { $0 != "=" }
        #expect(line.contains("--model-path is missing: \(name) takes all words up to the next option"), "\(line)")
        #expect(line.contains("write the model first, or as --model-path MODEL"))
        // The word may be a key.
        #expect(try !Self.refusal(["--served-model-name", "a"]).contains("takes all words"))
    }

    @Test func `names SGLang's variable where the stages are not those of the model`() throws {
        let variable = ["SGLANG_PP_LAYER_PARTITION": "30,31"]
        #expect(try Self.refusal([Program.demo], environment: variable).contains("pp_layer_partition"))
        #expect(
            try Self.refusal([Program.demo], environment: ["SGLANG_PP_LAYER_PARTITION": "a"])
                .contains("SGLANG_PP_LAYER_PARTITION"))
    }

    @Test func `is not the end of a server that SIGHUP reaches`() throws {
        let log = Pipe()
        let server = try Program.start(
            ["serve", Program.demo, "--port", "0"], output: FileHandle.nullDevice, errors: log)
        defer { server.terminate() }
        func wait(for words: String) -> Bool { log.fileHandleForReading.text(until: words).contains(words) }
        #expect(wait(for: "ready: "))
        for _ in 0..<2 {
            kill(server.processIdentifier, SIGHUP)
            #expect(wait(for: "SIGHUP: nothing is read again"))
        }
        #expect(server.isRunning)
    }

    @Test func `is followed by an end without complaints at SIGTERM`() throws {
        for _ in 0..<3 {
            let log = Pipe()
            let server = try Program.start(
                ["serve", Program.demo, "--port", "0"], output: FileHandle.nullDevice, errors: log)
            defer { server.terminate() }
            let text = log.fileHandleForReading.text(until: "ready: ")
            try #require(text.contains("ready: "), "\(text)")
            server.terminate()
            let rest = String(decoding: log.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            server.waitUntilExit()
            #expect(server.terminationStatus == 0)
            let lines = rest.split(separator: "\n")
            #expect(lines == ["draining: new requests are refused, running ones may end"], "\(rest)")
        }
    }

    @Test(arguments: [([], true), (["--sampling-defaults", "openai"], false)])
    func `names what of generation_config has no effect, where anything of it has one`(
        arguments: [String], isNamed: Bool
    ) throws {
        let checkpoint = try Checkpoint()
        try checkpoint.write("generation_config.json", #"{"num_beams": 4, "top_p": 0.9, "max_length": 20}"#)
        let log = Pipe()
        let server = try Program.start(
            ["serve", checkpoint.path, "--port", "0"] + arguments, output: FileHandle.nullDevice, errors: log)
        defer { server.terminate() }
        let text = log.fileHandleForReading.text(until: "ready: ")
        try #require(text.contains("ready: "), "\(text)")
        let line = "generation_config.json: has no effect here: num_beams"
        #expect(text.split(separator: "\n").contains { $0.hasSuffix(line) } == isNamed, "\(text)")
    }

    @Test func `is a line of JSON if the log is`() throws {
        let line = try Self.refusal(["/nowhere/model", "--log-format", "json"])
        #expect(line.hasPrefix("{\"time\": ") && line.contains("\"level\": \"critical\""))
        #expect(line.contains("/nowhere/model"))
    }

    @Test func `of a version prints it`() throws {
        let version = try Program.run(["--version"])
        #expect(version.status == 0 && version.output.split(separator: ".").count == 3)
    }
}
