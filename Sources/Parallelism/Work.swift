/// How many keys a rank looked at since the start, summed over rows and layers. One thread writes it.
package final class Work {
    /// By the indexer.
    package var scored = 0
    /// By attention, for all of its heads.
    package var attended = 0

    package init() {}
}
