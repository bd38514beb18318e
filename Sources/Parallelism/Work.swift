/// Counts a rank's work since the start, summed over rows and layers.
package struct Work: Sendable, Equatable {
    /// The number of rows whose index queries were computed.
    package var indexed = 0
    /// The number of keys that the indexer scored.
    package var scored = 0
    /// The number of keys that attention read; the rank's heads count once together.
    package var attended = 0
    /// The number of tokens' inputs from which compressors made entries.
    package var compressed = 0

    package init() {}
}
