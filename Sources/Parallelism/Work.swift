/// What a rank did since the start, summed over rows and layers.
package struct Work: Sendable, Equatable {
    /// Rows whose index queries were computed.
    package var indexed = 0
    /// Keys that the indexer scored.
    package var scored = 0
    /// Keys that attention read, once for all of the rank's heads.
    package var attended = 0

    package init() {}
}
