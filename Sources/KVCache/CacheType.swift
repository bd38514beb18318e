/// The element type in which a cache keeps keys, by the name of `--kv-cache-dtype`.
package enum CacheType: String, Sendable, CaseIterable {
    /// Keeps keys in F32, as they are computed.
    case float32
    case bfloat16
    /// Keeps keys in E4M3 with scales, except in lanes that stay BF16 (`KeySet.FP8Rounding`).
    case fp8 = "fp8_e4m3"
}
