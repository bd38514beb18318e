import ArgumentParser
package import KVCache
package import Modeling
package import Tensors

/// The value of `--kv-cache-dtype`: how the KV cache keeps keys, or the smallest way in which no answer changes.
package enum CacheChoice: String, CaseIterable, ExpressibleByArgument, Sendable {
    case auto, float32, bfloat16
    case fp8 = "fp8_e4m3"

    /// Reads a cache type by any of the names that other engines use.
    package init?(argument: String) {
        switch argument {
        case "fp32", "f32": self = .float32
        case "bf16": self = .bfloat16
        // vLLM's name of the form with a scale for 128 elements and a rotary part in BF16, which `fp8_e4m3` has too.
        case "fp8", "fp8_ds_mla": self = .fp8
        default: self.init(rawValue: argument)
        }
    }

    /// Returns the type of keys for a numerics profile. Profiles that round operands to BF16 round every key that they
    /// read, so a cache in BF16 gives the bits of one in F32.
    package func keys(in profile: NumericsProfile) -> CacheType.Keys {
        switch self {
        case .auto: profile.roundsToBF16 ? .bfloat16 : .float32
        case .float32: .float32
        case .bfloat16: .bfloat16
        case .fp8: .fp8
        }
    }
}

/// The options that say how the KV cache keeps index keys.
package struct IndexCacheOptions: ParsableArguments, Sendable {
    @Flag(
        name: .customLong("enable-deepseek-v4-fp4-indexer"),
        help: """
            Keep index keys in FP4, whatever the type of other keys: 68 bytes of an entry instead of 132 in FP8. Only for \
            DeepSeek-V4, which was trained for it.
            """)
    package var hasFP4Index = false

    package init() {}

    /// Returns the type of a cache whose other keys have this type.
    package func type(_ keys: CacheType.Keys) -> CacheType { CacheType(keys, hasFP4Index: hasFP4Index) }

    /// - Throws: `CommandError` if the model's index keys cannot be kept so.
    package func check(_ model: ModelDescription) throws {
        if let problem = model.problem(with: type(.float32)) { throw CommandError(problem) }
    }
}
