import Checkpoints
import Foundation
import Modeling
import Models
import Tensors
import TestSupport
import Testing

@Suite final class `A model's directory` {
    private let root = NSTemporaryDirectory() + "braid-models-\(UUID().uuidString)"

    deinit { try? FileManager.default.removeItem(atPath: root) }

    private func write(_ path: String, _ text: String = "{}") throws {
        let url = URL(fileURLWithPath: root + "/" + path)
        try FileManager.default.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(text.utf8).write(to: url)
    }

    private func location(_ given: String, revision: String? = nil) throws -> ModelLocation {
        try ModelLocation(given, revision: revision, environment: ["HF_HUB_CACHE": root])
    }

    private static let first = "0123456789abcdef0123456789abcdef01234567"
    private static let second = "89abcdef0123456789abcdef0123456789abcdef"

    @Test func `is found as it is given`() throws {
        try write("model/config.json")
        for path in ["\(root)/model", "\(root)/model/"] {
            let found = try location(path)
            #expect(found.directory == root + "/model" && found.name == "model")
        }
    }

    @Test func `is found in the download cache by the model's name and by the cache's directory`() throws {
        let model = "models--someone--Model-1"
        try write("\(model)/snapshots/\(Self.first)/config.json")
        for given in ["someone/Model-1", root + "/" + model] {
            let found = try location(given)
            #expect(found.directory == "\(root)/\(model)/snapshots/\(Self.first)" && found.name == "someone/Model-1")
        }
        // With two snapshots, main is the one that its reference names.
        try write("\(model)/snapshots/\(Self.second)/config.json")
        #expect(throws: (any Error).self) { try location("someone/Model-1") }
        try write("\(model)/refs/main", Self.second + "\n")
        try write("\(model)/refs/v1", Self.first)
        for (revision, commit) in [
            (nil, Self.second), ("main", Self.second), ("v1", Self.first), (Self.first, Self.first),
            ("0123456", Self.first),
        ] {
            let found = try location("someone/Model-1", revision: revision)
            #expect(found.directory.hasSuffix(commit), "\(revision ?? "none")")
        }
        let error = try refusal { try location("someone/Model-1", revision: "v2") }
        #expect(error.problem.contains("v2") && error.problem.contains(Self.first))
    }

    @Test func `is found by the address of its page, in the revision that the page shows`() throws {
        try write("models--a--b/snapshots/\(Self.first)/config.json")
        try write("models--a--b/snapshots/\(Self.second)/config.json")
        try write("models--a--b/refs/main", Self.first)
        try write("models--a--b/refs/v2", Self.second)
        for (tail, commit) in [
            ("", Self.first), ("/", Self.first), ("/tree/main", Self.first), ("/tree/v2", Self.second),
            ("/tree/v2/", Self.second), ("/tree/\(Self.second)", Self.second),
        ] {
            let found = try location("https://huggingface.co/a/b\(tail)")
            #expect(found.name == "a/b" && found.directory.hasSuffix(commit), "\(tail)")
        }
        #expect(try location("hf.co/a/b/tree/v2", revision: "v2").directory.hasSuffix(Self.second))
        let error = try refusal { try location("hf.co/a/b/tree/v2", revision: "main") }
        #expect(error.problem.contains("revision v2") && error.problem.contains("--revision is main"))
        for other in [
            "a/b/tree", "a/b/tree/v2/folder", "a/b/blob/main", "a/b/resolve/main/config.json", "a/b/discussions",
            "a/b?library=x", "a/b#use", "datasets/a/b", "datasets/a", "spaces/a/b", "spaces/a",
        ] {
            let error = try refusal { try location("https://huggingface.co/\(other)") }
            #expect(error.problem.contains("is not the address of a model's page"), "\(other): \(error)")
        }
    }

    @Test(arguments: [("a/b:latest", false), ("a/b-GGUF:Q4_K_M", true), ("hf.co/a/b-gguf:Q8_0", true)])
    func `has no colon in its name`(given: String, isGGUF: Bool) throws {
        let error = try refusal { try location(given) }
        #expect(error.problem.contains("GGUF") == isGGUF, "\(error)")
        #expect(error.advice.contains("leave out ':latest'") == !isGGUF, "\(error)")
    }

    @Test func `is looked for where Hugging Face's library keeps it`() throws {
        try write("hub/models--a--b/snapshots/\(Self.first)/config.json")
        try write("huggingface/hub/models--c--d/snapshots/\(Self.first)/config.json")
        #expect(try ModelLocation("a/b", environment: ["HF_HOME": root]).name == "a/b")
        #expect(try ModelLocation("a/b", cache: root + "/hub", environment: [:]).name == "a/b")
        #expect(try ModelLocation("c/d", environment: ["XDG_CACHE_HOME": root]).name == "c/d")
        let error = try refusal { try ModelLocation("a/b", environment: ["HF_HUB_CACHE": root]) }
        #expect(error.problem.contains(root) && error.advice.contains("hf download a/b"))
    }

    @Test(arguments: ["../secret", "a/..", "/a/b/c", "a", "a/b/c", "~/model", "./model", ""])
    func `is not looked for in the cache by what is no model's name`(given: String) throws {
        let error = try refusal { try location(given) }
        #expect(!error.problem.contains("cache"), "\(error)")
    }

    /// Returns what a model recommends whose `generation_config.json` has this text.
    private func generation(_ text: String) throws -> GenerationDefaults {
        try write(
            "model/config.json", String(contentsOfFile: Golden.root + "/Models/demo/config.json", encoding: .utf8))
        try write("model/generation_config.json", text)
        return try ModelDirectory(root + "/model").generation
    }

    @Test func `gives the sampling parameters of its generation_config`() throws {
        let sampled = try generation(
            #"{"temperature": 0.6, "top_p": 0.95, "top_k": -1, "min_p": 0.1, "repetition_penalty": 1.05}"#)
        #expect(sampled.temperature == 0.6 && sampled.topP == 0.95 && sampled.topK == 0 && sampled.minP == 0.1)
        #expect(sampled.repetitionPenalty == 1.05)
        // Greedy decoding needs no other parameter than the penalty.
        let greedy = try generation(#"{"do_sample": false, "temperature": 0.6, "repetition_penalty": 1.05}"#)
        #expect(greedy.temperature == 0 && greedy.topP == nil && greedy.repetitionPenalty == 1.05)
        #expect(try generation(#"{"do_sample": true, "repetition_penalty": null}"#).repetitionPenalty == 1)
        #expect(throws: (any Error).self) { try generation(#"{"repetition_penalty": 0}"#) }
    }

    @Test func `gives the length and the penalties of its generation_config, also for greedy decoding`() throws {
        for sampling in ["true", "false"] {
            let given = try generation(
                #"{"do_sample": \#(sampling), "max_new_tokens": 2048, "presence_penalty": 1.5, "frequency_penalty": -0.5, "#
                    + #""skip_special_tokens": false}"#)
            #expect(given.maxNewTokens == 2048 && given.skipsSpecialTokens == false)
            #expect(given.presencePenalty == 1.5 && given.frequencyPenalty == -0.5)
        }
        #expect(try generation(#"{"max_new_tokens": null}"#).maxNewTokens == nil)
        #expect(try generation("{}").maxNewTokens == nil)
        for text in [#""max_new_tokens": 0"#, #""max_new_tokens": "many""#, #""presence_penalty": 3"#] {
            #expect(throws: CheckpointError.self, "\(text)") { try generation("{\(text)}") }
        }
    }

    @Test func `names the members of its generation_config that have no effect`() throws {
        let unused = try generation(
            #"{"suppress_tokens": [3], "num_beams": 4, "sequence_bias": {"[1]": 2}, "stop_strings": "x", "top_p": 0.9}"#
        )
        #expect(unused.unusedMembers == ["num_beams", "sequence_bias", "stop_strings", "suppress_tokens"])
        let neutral = try generation(
            #"{"num_beams": 1, "max_length": 20, "suppress_tokens": [], "bad_words_ids": null, "typical_p": 1.0, "#
                + #""watermarking_config": {}, "token_healing": false, "use_cache": true, "transformers_version": "5"}"#
        )
        #expect(neutral.unusedMembers == [])
    }

    @Test func `says how its weights are stored`() throws {
        let config = try String(contentsOfFile: Golden.root + "/Models/demo/config.json", encoding: .utf8)
        try write(
            "model/config.json",
            config.replacing("\"torch_dtype\": \"float32\"", with: "\"torch_dtype\": \"torch.half\""))
        #expect(try ModelDirectory(root + "/model").description.weightType == .f32)
        #expect(try ModelDirectory(root + "/model").quantization == nil)
        let quantized = #""quantization_config": {"quant_method": "w8a8_int8"}, "hidden_act"#
        try write("model/config.json", config.replacing("\"hidden_act", with: quantized))
        #expect(try ModelDirectory(root + "/model").quantization == "w8a8_int8")
        #expect(try ModelDirectory(root + "/model").quantizedFormat == .int8)
        try write("model/config.json", config)
        try write("model/quant_model_description.json", #"{"a.weight": "W8A8_DYNAMIC"}"#)
        let described = try ModelDirectory(root + "/model")
        #expect(described.quantization == "modelslim" && described.quantizedFormat == .int8)
    }
}
