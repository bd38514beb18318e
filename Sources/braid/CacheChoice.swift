import ArgumentParser
package import KVCache
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

    /// Returns the type for a numerics profile. Profiles that round operands to BF16 round every key that they read, so
    /// a cache in BF16 gives the bits of one in F32.
    package func type(in profile: NumericsProfile) -> CacheType {
        switch self {
        case .auto: profile.roundsToBF16 ? .bfloat16 : .float32
        case .float32: .float32
        case .bfloat16: .bfloat16
        case .fp8: .fp8
        }
    }
}
