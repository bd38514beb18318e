package import Inference
package import KVCache

/// A KV receiver is the part of one transfer that concerns the keys of one process of the decode server: it checks frames,
/// has their entries written to the request's pages, and knows when all have arrived.
///
/// Each sending process sends each layer's positions in order and without gaps. A frame that does not continue what
/// came before it is refused, and so is one whose payload is not exactly as long as the transfer plan says.
package struct KVReceiver: Sendable {
    private let plan: TransferPlan
    private let receiver: Int
    private let reservation: KVReservation
    /// The progress of each layer of each sender, for both kinds of key sets.
    private var keys: [Source: Int] = [:]
    private var windows: [Source: Int?] = [:]
    /// The position from which on entries of window sets have arrived; `nil` before the first has.
    package private(set) var windowStart: Int?

    private struct Source: Hashable {
        let sender: Int
        let layer: Int
    }

    package init(_ plan: TransferPlan, process: Int, _ reservation: KVReservation) {
        self.plan = plan
        receiver = process
        self.reservation = reservation
        for sender in 0..<plan.source.processes {
            for layer in plan.layers(from: sender, to: process, isWindow: false) {
                keys[Source(sender: sender, layer: layer)] = reservation.positions.lowerBound
            }
            guard reservation.windowStart < reservation.positions.upperBound else { continue }
            for layer in plan.layers(from: sender, to: process, isWindow: true) {
                windows[Source(sender: sender, layer: layer)] = .some(nil)
            }
        }
    }

    /// The first position that lacks some of the keys that this process keeps, windows aside.
    package var reached: Int { keys.values.min() ?? reservation.positions.upperBound }

    /// True if all entries have arrived.
    package var isComplete: Bool {
        let end = reservation.positions.upperBound
        return reached == end && windows.values.allSatisfy { $0 == end }
    }

    /// Has the entries of a frame written.
    ///
    /// - Parameter write: writes the bytes of some entries into the process's cache, and returns whether it could.
    /// - Returns: what is wrong with the frame, with nothing written; `nil` if it is right.
    package mutating func place(_ frame: KVFrame, _ write: ([UInt8], [CacheEntries]) -> Bool) -> String? {
        if let problem = problem(with: frame) { return problem }
        let isWindow = frame.kind == .window
        let format = plan.target.format
        let entries = frame.layers.flatMap { plan.entries(ofLayer: $0, of: frame, in: reservation.pages, format) }
        guard format.bytes(of: entries) == frame.payload.count else {
            return "\(frame.payload.count) bytes for entries of \(format.bytes(of: entries))"
        }
        guard write(frame.payload, entries) else {
            return "process \(receiver) does not keep entries of \(frame.positions)"
        }
        for layer in frame.layers {
            let source = Source(sender: frame.sender, layer: layer)
            if isWindow {
                windows[source] = frame.positions.upperBound
            } else {
                keys[source] = frame.positions.upperBound
            }
        }
        if isWindow { windowStart = windowStart ?? frame.positions.lowerBound }
        return nil
    }

    private func problem(with frame: KVFrame) -> String? {
        guard frame.kind != .beat, frame.receiver == receiver, !frame.layers.isEmpty, !frame.positions.isEmpty,
            frame.positions.upperBound <= reservation.positions.upperBound
        else { return "layers \(frame.layers) of positions \(frame.positions) for process \(frame.receiver)" }
        for layer in frame.layers {
            let source = Source(sender: frame.sender, layer: layer)
            if frame.kind == .keys {
                guard keys[source] == frame.positions.lowerBound else {
                    return
                        "positions \(frame.positions) of layer \(layer) from process \(frame.sender), which has sent "
                        + "those before \(keys[source] ?? -1)"
                }
            } else {
                guard let reached = windows[source], isNext(frame.positions.lowerBound, behind: reached) else {
                    return "window entries \(frame.positions) of layer \(layer) from process \(frame.sender)"
                }
            }
        }
        return nil
    }

    /// Returns true if a sender's window entries may continue, or begin, at a position: at the latest with the first
    /// entry that the row after the prompt sees.
    private func isNext(_ first: Int, behind reached: Int?) -> Bool {
        if let reached { return first == reached }
        if let windowStart { return first == windowStart }
        let seen = reservation.positions.upperBound - plan.target.format.window + 1
        return (reservation.windowStart...max(reservation.windowStart, seen)).contains(first)
    }
}
