import ArgumentParser
import Checkpoints
import Foundation
import Models
import Tensors
import TestSupport
import Testing
import braid

@Suite struct `The option --dtype` {
    private static func choice(_ word: String) throws -> ProfileChoice? {
        try EngineOptions.parse(["--model-path", "m", "--dtype", word]).dtype
    }

    @Test func `has the names of vLLM and SGLang, and is auto by default`() throws {
        #expect(try EngineOptions.parse(["--model-path", "m"]).dtype == .auto)
        for word in ["float32", "float", "fp32"] { #expect(try Self.choice(word) == .float32) }
        for word in ["bfloat16", "bf16"] { #expect(try Self.choice(word) == .bfloat16) }
        #expect(try Self.choice("auto") == .auto)
        for choice in ProfileChoice.allCases { #expect(try Self.choice(choice.rawValue) == choice) }
        // Each profile has the name of its option.
        #expect(Set(NumericsProfile.allCases.map(\.name) + ["auto"]) == Set(ProfileChoice.allCases.map(\.rawValue)))
    }

    @Test(arguments: ["half", "float16", "float64", "fp8", ""])
    func `refuses what it does not have, with the legal values`(word: String) throws {
        let error = try #require(throws: (any Error).self) { try Self.choice(word) }
        let message = EngineOptions.message(for: error)
        #expect(["--dtype", "'auto'", "'float32'", "'bfloat16'"].allSatisfy(message.contains), "\(message)")
    }

    /// The profile that `auto` takes for a directory, with its weights and by its `config.json` alone.
    private static func automatic(_ directory: ModelDirectory) throws -> [NumericsProfile] {
        [
            ProfileChoice.auto.profile(of: directory, try directory.openWeights(.auto)),
            ProfileChoice.auto.profile(of: directory, nil),
        ]
    }

    @Test(arguments: ["v32", "glm-shared", "v4"])
    func `is float32 by itself for a checkpoint in F32`(name: String) throws {
        #expect(try Self.automatic(Golden(name).directory) == [.f32, .f32])
    }

    @Test(arguments: ["v3", "v32-norope-scaling", "v32-fp8", "v4-fp8-fp4"])
    func `is bfloat16 by itself for a checkpoint in BF16, FP8 or FP4`(name: String) throws {
        #expect(try Self.automatic(Golden(name).directory) == [.bf16, .bf16])
    }

    @Test(arguments: [
        ("F32", NumericsProfile.f32), ("F16", .f32), ("BF16", .bf16), ("I8", .int8F32), ("F8_E4M3", .bf16),
    ])
    func `judges by the type that most bytes of the matrices have`(type: String, expected: NumericsProfile) throws {
        let directory = NSTemporaryDirectory() + "braid-dtype-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let bytes = try #require(StoredType(rawValue: type)).bytes
        var writer = SafeTensorsWriter()
        writer.add("matrix", type, [16, 16], Array(repeating: 1, count: 256 * bytes))
        // A vector and the smaller matrices of another type do not count. Beside INT8 those of other types decide.
        for (name, other) in [("narrow", "BF16"), ("wide", "F32")] where other != type {
            let size = try #require(StoredType(rawValue: other)).bytes
            writer.add(name, other, [4, 4], Array(repeating: 1, count: 16 * size))
            writer.add(name + " vector", other, [512], Array(repeating: 1, count: 512 * size))
        }
        try writer.write(to: directory + "/model.safetensors")
        #expect(try WeightIndex(directory: directory).profile == expected)
    }

    @Test func `that is given decides for every checkpoint`() throws {
        for name in ["v32", "v3"] {
            let directory = try Golden(name).directory
            #expect(ProfileChoice.float32.profile(of: directory, nil) == .f32)
            #expect(ProfileChoice.bfloat16.profile(of: directory, nil) == .bf16)
        }
    }

    /// Writes a checkpoint of random weights, which the test removes.
    private static func written(_ storage: RandomCheckpoint.Storage) throws -> ModelDirectory {
        var checkpoint = RandomCheckpoint()
        checkpoint.storage = storage
        checkpoint.layers = 1
        let path = NSTemporaryDirectory() + "braid-dtype-\(UUID().uuidString)"
        try checkpoint.write(to: path)
        return try ModelDirectory(path)
    }

    private static func profile(_ options: String, of directory: ModelDirectory) throws -> NumericsProfile {
        let words = options.split(separator: " ").map(String.init)
        return try EngineOptions.parse(["--model-path", directory.path] + words)
            .profile(of: directory, directory.openWeights(.auto))
    }

    @Test func `is int8 by itself for a checkpoint with INT8 weights, and with --quantization`() throws {
        let directory = try Self.written(.int8)
        defer { try? FileManager.default.removeItem(atPath: directory.path) }
        #expect(try Self.automatic(directory) == [.int8, .int8])
        let expected: [(String, NumericsProfile)] = [
            ("", .int8), ("--quantization w8a8_int8", .int8), ("--quantization w8a8_int8 --dtype bfloat16", .int8),
            ("--quantization w8a8_int8 --dtype float32", .int8F32), ("--dtype float32", .f32),
            ("--dtype bfloat16", .bf16),
        ]
        for (options, profile) in expected {
            #expect(try Self.profile(options, of: directory) == profile, "\(options)")
        }
    }

    @Test(arguments: ["int8", "int8-float32"])
    func `is refused for a checkpoint without INT8 weights if it is for those`(word: String) throws {
        let directory = try Self.written(.bf16)
        defer { try? FileManager.default.removeItem(atPath: directory.path) }
        let error = try #require(throws: (any Error).self) { try Self.profile("--dtype \(word)", of: directory) }
        #expect("\(error)".contains("--dtype: \(word) is for checkpoints with INT8 weights"))
    }
}
