import Dispatch
import Inference
import Synchronization

/// Has the frames of one session of a prefill server packed by the processes that keep their entries, a few at a time, and
/// returns them to be sent. The entries of the first process are packed at once, those of others later; the frames of one
/// process stay in order.
final class FramePacking: Sendable {
    private let state: Mutex<State>
    private let bell: DispatchSemaphore

    private struct State {
        /// For each process, the number of frames that are being packed, or are packed and not taken yet.
        var pending: [Int]
        var packed: [KVFrame] = []
        /// For each process, the process of the decode server that gets the next frame if there is one for it.
        var turns: [Int]
    }

    /// The number of frames of one process that are being packed or wait to be sent. One is packed while another one is
    /// on its way to the link.
    private static let maxPending = 2

    /// - Parameters:
    ///   - processes: the number of processes of the prefill server.
    ///   - bell: is signalled when another process has packed a frame.
    init(processes: Int, _ bell: DispatchSemaphore) {
        let zeros = Array(repeating: 0, count: processes)
        state = Mutex(State(pending: zeros, turns: zeros))
        self.bell = bell
    }

    var hasPacked: Bool { state.withLock { !$0.packed.isEmpty } }

    /// Returns the frames that are packed, without their sequence numbers.
    func takePacked() -> [KVFrame] {
        state.withLock { state in
            for frame in state.packed { state.pending[frame.sender] -= 1 }
            defer { state.packed = [] }
            return state.packed
        }
    }

    /// Has the next frames of every process packed. It is called under the engine's lock.
    func fill(from session: inout PrefillSession, _ caches: ServerCaches) {
        // Before `storedLayers`: what is stored after it gives an alert.
        if session.awaitsLayers { caches.awaitStoredLayers() }
        let (own, other) = session.processes
        for process in 0..<own {
            // Ends when there is no frame for any receiver.
            var misses = 0
            while misses < other, let receiver = nextReceiver(of: process, among: other) {
                guard let next = session.nextUnpackedFrame(from: process, to: receiver, caches.storedLayers)
                else {
                    misses += 1
                    continue
                }
                misses = 0
                state.withLock { $0.pending[process] += 1 }
                caches.pack(next.entries, in: process) { [weak self] bytes in
                    guard let self else { return }
                    state.withLock { $0.packed.append(next.with(bytes)) }
                    if process > 0 { bell.signal() }
                }
            }
        }
    }

    /// Returns the receiver whose turn it is; `nil` if as many frames of the process are pending as may be.
    private func nextReceiver(of process: Int, among receivers: Int) -> Int? {
        state.withLock { state in
            guard state.pending[process] < Self.maxPending else { return nil }
            defer { state.turns[process] = (state.turns[process] + 1) % receivers }
            return state.turns[process]
        }
    }
}
