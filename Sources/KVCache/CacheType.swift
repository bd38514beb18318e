/// How the cache keeps keys, by the name users give it.
package enum CacheType: String, Sendable, CaseIterable {
    /// As computed.
    case float32
    case bfloat16
    /// E4M3 with F32 scales, as far as the model's lanes stand it (`KeySet.FP8Rounding`).
    case fp8 = "fp8_e4m3"
}
