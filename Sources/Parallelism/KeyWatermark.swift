import Synchronization

/// A key watermark tells other threads, in the middle of a step, of how many layers a rank has the keys of the step's
/// rows: its own, and those of the other ranks of its data group that its process keeps. The rank's thread only stores
/// and loads atomics: it takes no lock and allocates nothing.
package final class KeyWatermark: Sendable {
    /// The step's number in the upper 48 bits, the number of layers in the others. Only the rank's thread writes it.
    private let mark = Atomic<UInt64>(0)
    private let isAwaited = Atomic(false)
    private let interval: Int
    private let alert: @Sendable () -> Void

    private static let layerBits: UInt64 = 16
    private static let layerMask: UInt64 = 1 << layerBits - 1

    /// - Parameters:
    ///   - interval: the number of consecutive layers after whose last one somebody may wait for the rank.
    ///   - alert: is called on the rank's thread at such a layer, if somebody waits. It must not wait or allocate.
    package init(interval: Int, alert: @escaping @Sendable () -> Void) {
        precondition(interval > 0, "layers are counted in runs of \(interval)")
        self.interval = interval
        self.alert = alert
    }

    /// Begins a step, after the end of the one before. Only the rank's thread may call it.
    package func begin(step: Int) { mark.store(UInt64(step) << Self.layerBits, ordering: .relaxed) }

    /// Records that the keys of a layer are stored, as those of all earlier layers of the rank are. Only the rank's
    /// thread may call it.
    package func pass(layer: Int) {
        let step = mark.load(ordering: .relaxed) & ~Self.layerMask
        // One order for all threads: either this rank sees that it is awaited, or who waits then sees the layer.
        mark.store(step | UInt64(layer + 1), ordering: .sequentiallyConsistent)
        guard (layer + 1) % interval == 0, isAwaited.load(ordering: .sequentiallyConsistent) else { return }
        isAwaited.store(false, ordering: .sequentiallyConsistent)
        alert()
    }

    /// Returns the number of layers, from the model's first one on, of which the keys of a step's rows are stored;
    /// `Int.max` if the rank is in a later step, 0 if it is in an earlier one.
    package func layers(of step: Int) -> Int {
        let mark = mark.load(ordering: .sequentiallyConsistent)
        let current = mark >> Self.layerBits
        if current != UInt64(step) { return current > UInt64(step) ? .max : 0 }
        return Int(mark & Self.layerMask)
    }

    /// Asks for one alert. Who waits must look at `layers` again afterwards, before it waits.
    package func awaitNext() { isAwaited.store(true, ordering: .sequentiallyConsistent) }
}
