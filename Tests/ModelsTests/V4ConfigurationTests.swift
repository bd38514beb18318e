import Checkpoints
import DeepSeekV4
import Foundation
import KVCache
import Modeling
import Models
import Parallelism
import Planning
import Tensors
import TestSupport
import Testing

@Suite struct `A DeepSeek-V4 configuration` {
    private static func configuration(
        _ name: String = "v4", _ change: (inout [String: Any]) -> Void = { _ in }
    ) throws -> DeepSeekV4Configuration {
        let path = Golden.root + "/Tests/Golden/\(name)/checkpoint/config.json"
        let data = try Data(contentsOf: URL(fileURLWithPath: path))
        var members = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
        change(&members)
        let text = try JSONSerialization.data(withJSONObject: members)
        return try DeepSeekV4Configuration(ModelConfigurationFile.parse(Array(text), file: "config.json"))
    }

    private static func expectRefused(_ key: String, _ value: Any?) throws {
        let error = try refusal { try configuration { $0[key] = value } }
        #expect(error.subject == .key(key) && !error.advice.isEmpty, "\(key)")
    }

    /// The number of parameters, and of those that a token uses, are the published ones.
    @Test(arguments: [
        (
            ReleasedModel.v4Flash, 43, [LayerKind.slidingWindow: 2, .compressedSparse: 21, .heavilyCompressed: 20],
            284.3
        ),
        (.v4Pro, 61, [.compressedSparse: 30, .heavilyCompressed: 31], 1573),
    ])
    func `is that of a released model`(
        released: ReleasedModel, layers: Int, kinds: [LayerKind: Int], billions: Double
    ) throws {
        let configuration = try #require(try released.configuration() as? DeepSeekV4Configuration)
        #expect(configuration.layers == layers && configuration.nextTokenLayers == 1)
        let found = configuration.kinds.reduce(into: [:]) { $0[$1, default: 0] += 1 }
        #expect(found == kinds)
        #expect(configuration.hashLayers.prefix(4) == [true, true, true, false])
        #expect(configuration.kind(ofLayer: layers) == .slidingWindow)
        let total = Double(configuration.description.parameters.total) / 1e9
        #expect(abs(total / billions - 1) < 2e-3, "\(total)")
    }

    @Test func `interpolates the rotary angles of layers with entries only`() throws {
        let flash = try #require(try ReleasedModel.v4Flash.configuration() as? DeepSeekV4Configuration)
        let compressed = flash.compressedRotary.frequencies
        for (pair, expected) in [
            (1, 0.687_656_021_9), (15, 3.635_538_584e-3), (16, 2.265_625e-3), (31, 5.680_529_037e-7),
        ] {
            #expect(abs(Double(compressed[pair]) / expected - 1) < 1e-6, "pair \(pair)")
        }
        #expect(abs(flash.rotary.frequencies[1] / Float(pow(10_000, -2.0 / 64)) - 1) < 1e-6)
        #expect(flash.rotary.yarn == nil && flash.compressedRotary.amplitude == 1)
        #expect(flash.softmaxScale == 1 / Float(512).squareRoot())
    }

    @Test func `has the same meaning in the newer spelling`() throws {
        let released = try Self.configuration()
        let newer = try Self.configuration {
            for key in ["compress_ratios", "num_hash_layers", "rope_scaling", "qk_rope_head_dim"] { $0[key] = nil }
            $0["layer_types"] = released.kinds.map(\.rawValue)
            $0["compress_rates"] = ["compressed_sparse_attention": 4, "heavily_compressed_attention": 128]
            $0["mlp_layer_types"] = released.hashLayers.map { $0 ? "hash_moe" : "moe" }
            $0["partial_rotary_factor"] = Double(released.ropeWidth) / Double(released.headWidth)
            $0["rope_parameters"] = [
                "main": ["rope_type": "default", "rope_theta": 10000],
                "compress": [
                    "rope_type": "yarn", "rope_theta": 160000, "factor": 16, "original_max_position_embeddings": 64,
                    "beta_fast": 32, "beta_slow": 1, "attention_factor": 1.0,
                ],
            ]
        }
        #expect(newer == released)
    }

    @Test func `is refused by the key that cannot be right`() throws {
        for key in ["head_dim", "sliding_window", "o_groups", "swiglu_limit", "hc_mult", "index_topk"] {
            try Self.expectRefused(key, nil)
        }
        try Self.expectRefused("compress_ratios", [0, 4, 16, 0])
        try Self.expectRefused("compress_ratios", [0, 4])
        try Self.expectRefused("compress_ratios", [0, 4, 128, 4])
        try Self.expectRefused("scoring_func", "sigmoid")
        try Self.expectRefused("o_groups", 3)
        try Self.expectRefused("qk_rope_head_dim", 7)
        try Self.expectRefused("num_key_value_heads", 8)
        try Self.expectRefused("expert_dtype", "int4")
        try Self.expectRefused("norm_topk_prob", false)
        for key in ["norm_topk_prob", "rms_norm_eps", "rope_theta", "compress_rope_theta"] {
            try Self.expectRefused(key, NSNull())
        }
    }

    @Test func `is refused if two spellings contradict each other`() throws {
        for (key, newer, value) in [
            ("compress_ratios", "layer_types", Array(repeating: "sliding_attention", count: 3) as Any),
            ("num_hash_layers", "mlp_layer_types", ["moe", "moe", "moe"]),
            ("qk_rope_head_dim", "partial_rotary_factor", 0.9),
        ] {
            let error = try refusal { try Self.configuration { $0[newer] = value } }
            #expect(error.subject == .key(key), "\(newer): \(error)")
        }
        try Self.expectRefused("n_group", 2)
        let yarn: [String: Any] = [
            "rope_type": "yarn", "rope_theta": 160000, "factor": 8, "original_max_position_embeddings": 64,
            "attention_factor": 1,
        ]
        for (key, own) in [("rope_scaling", ["compress": yarn]), ("rope_theta", ["main": ["rope_theta": 500]])] {
            let error = try refusal { try Self.configuration { $0["rope_parameters"] = own } }
            #expect(error.subject == .key(key), "\(error)")
        }
    }

    @Test func `is refused if YaRN in the newer spelling does not say that cosines and sines are not scaled`() throws {
        let yarn: [String: Any] = [
            "rope_type": "yarn", "rope_theta": 160000, "factor": 16, "original_max_position_embeddings": 64,
        ]
        let error = try refusal { try Self.configuration { $0["rope_parameters"] = ["compress": yarn] } }
        #expect(error.subject == .key("rope_parameters.compress.attention_factor"), "\(error)")
    }

    @Test func `is refused with a null in YaRN that would not mean what a missing key means`() throws {
        for key in ["truncate", "attention_factor"] {
            let error = try refusal {
                try Self.configuration {
                    var scaling = $0["rope_scaling"] as? [String: Any] ?? [:]
                    scaling[key] = NSNull()
                    $0["rope_scaling"] = scaling
                }
            }
            #expect(error.subject == .key("rope_scaling." + key), "\(error)")
        }
    }

    @Test(arguments: ["rope_parameters", "rope_scaling"])
    func `is refused if an object has another base than the file`(object: String) throws {
        let error = try refusal {
            try Self.configuration {
                $0["rope_theta"] = 10000
                $0[object] = ["rope_type": "default", "rope_theta": 160000]
            }
        }
        #expect(error.subject == .key("rope_theta"), "\(error)")
        #expect(error.problem == "is 10000.0, but \(object).rope_theta is 160000.0")
    }

    @Test func `may have windows only, which take no memory for each token`() throws {
        let configuration = try Self.configuration { $0["compress_ratios"] = [0, 0, 0, 0] }
        let format = configuration.cacheFormat(.bfloat16, pageSize: 64)
        let cost = LayoutCost(configuration.description, ParallelConfiguration(), format: format)
        #expect(cost.capacity(bytesPerRank: 1 << 30, owners: 1) == .max)
    }

    @Test func `lists the key sets of each kind of layer`() throws {
        let format = try Self.configuration().cacheFormat(.fp8, pageSize: 256, drafts: true)
        #expect(format.layers.map { $0.map(\.tokensPerEntry) } == [[1], [1, 1, 4], [1, 1, 128], [1]])
        #expect(format.layers[1].map(\.window) == [16, 8, nil] && format.layers[2].map(\.window) == [16, 128, nil])
        #expect(format.positionAlignment == 128 && format.window == 128)
        #expect(format.layers[1][1].lanes.map(\.width) == [2 * 2 * 24, 2 * 2 * 16])
        #expect(format.layers[2][1].lanes.map(\.dtype) == [.f32])
    }

    @Test(arguments: [ReleasedModel.v4Flash, .v4Pro], CacheType.withFP4Index)
    func `of released shape keeps an index key in FP4 in 68 bytes`(model: ReleasedModel, type: CacheType) throws {
        let format = try model.configuration().cacheFormat(type, pageSize: 128, drafts: true)
        let plain = try model.configuration().cacheFormat(CacheType(type.keys), pageSize: 128, drafts: true)
        let lanes = format.layers.joined().filter { $0.tokensPerEntry == 4 }.map { $0.lanes[KeySets.index] }
        #expect(!lanes.isEmpty && lanes.allSatisfy { $0.bytesPerEntry == 68 })
        #expect(lanes.allSatisfy { $0 == KeySet.Lane(.fp4, width: 128, group: 32, scaleType: .e8m0) })
        // All other lanes are as without it.
        for (sets, others) in zip(format.layers.joined(), plain.layers.joined()) {
            #expect(
                Array(sets.lanes.prefix(2)) == Array(others.lanes.prefix(2)) && sets.lanes.count == others.lanes.count)
        }
    }

    @Test(arguments: [ReleasedModel.v4Flash, .v4Pro])
    func `of released shape keeps a key of an FP8 cache in 584 bytes, as other engines do`(model: ReleasedModel) throws
    {
        let format = try model.configuration().cacheFormat(.fp8, pageSize: 128, drafts: true)
        for (layer, sets) in format.layers.enumerated() {
            for set in sets where set.name != "compressor inputs" {
                // 448 values, seven scales of a byte and one byte more, then 64 rotary elements in BF16.
                #expect(set.lanes[KeySets.latent].bytesPerEntry == 448 + 8, "layer \(layer)")
                #expect(set.lanes[KeySets.rotary].bytesPerEntry == 64 * 2, "layer \(layer)")
                #expect(set.bytesPerEntry == (set.tokensPerEntry == 4 ? 584 + 132 : 584), "layer \(layer)")
            }
        }
    }
}
