import Tensors

/// How the cache keeps keys, by the name users give it.
package enum CacheType: String, Sendable, CaseIterable {
    /// As computed.
    case float32
    case bfloat16
    /// E4M3 with F32 scales; rotary keys, a small part with large values, BF16.
    case fp8 = "fp8_e4m3"
}

extension CacheFormat.Lane {
    /// Latent columns that share a scale in an FP8 cache. An index key, whose elements a rotation has made alike, has
    /// one scale.
    private static let latentGroup = 128

    /// The lane that keeps `width` elements of this kind in a cache of this type.
    package init(_ kind: CacheFormat.LaneKind, as type: CacheType, width: Int) {
        switch (type, kind) {
        case (.float32, _): self.init(kind, .f32, width: width)
        case (.bfloat16, _), (.fp8, .ropeKey): self.init(kind, .bf16, width: width)
        case (.fp8, .latent): self.init(kind, .fp8, width: width, group: Self.latentGroup)
        case (.fp8, .indexKey): self.init(kind, .fp8, width: width)
        }
    }
}
