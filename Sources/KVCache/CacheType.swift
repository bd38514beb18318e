/// A cache type says how a cache keeps keys, as `--kv-cache-dtype` and `--enable-deepseek-v4-fp4-indexer` do.
package struct CacheType: Sendable, Hashable {
    /// The element type of keys, by the name of `--kv-cache-dtype`.
    package enum Keys: String, Sendable, CaseIterable {
        /// Keeps keys in F32, as they are computed.
        case float32
        case bfloat16
        /// Keeps keys in E4M3 with scales, except in lanes that stay BF16 (`KeySet.FP8Rounding`).
        case fp8 = "fp8_e4m3"
    }

    package var keys: Keys
    /// True if index keys are kept in FP4, whatever the type of the other keys. Not every model can.
    package var hasFP4Index: Bool

    package init(_ keys: Keys, hasFP4Index: Bool = false) {
        self.keys = keys
        self.hasFP4Index = hasFP4Index
    }

    package static let float32 = CacheType(.float32)
    package static let bfloat16 = CacheType(.bfloat16)
    package static let fp8 = CacheType(.fp8)

    /// The types that a cache of any model may have.
    package static let plain = Keys.allCases.map { CacheType($0) }
    /// The types of caches that keep index keys in FP4.
    package static let withFP4Index = Keys.allCases.map { CacheType($0, hasFP4Index: true) }
}

extension CacheType: RawRepresentable {
    /// The type in one word, such as `bfloat16` or `fp8_e4m3+fp4-index`.
    package var rawValue: String { keys.rawValue + (hasFP4Index ? "+fp4-index" : "") }

    package init?(rawValue: String) {
        guard let type = (Self.plain + Self.withFP4Index).first(where: { $0.rawValue == rawValue }) else { return nil }
        self = type
    }
}
