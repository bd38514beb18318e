/// How many keys a rank looked at since the start, summed over rows and layers.
package struct Work: Sendable, Equatable {
    /// By the indexer.
    package var scored = 0
    /// By attention, once for all of the rank's heads.
    package var attended = 0

    package init() {}
}
