package import Inference
package import KVCache

/// A KV sender is the part of one transfer in one process of the prefill server: it cuts the keys that the process
/// sends into frames, for each receiving process in the order of positions and layers.
///
/// It sends what is computed, and knows how far it has come. If the pages are given up (`pause`), it goes on from there
/// when the keys are computed again: they are the same bytes.
package struct KVSender: Sendable {
    private let plan: TransferPlan
    private let sender: Int
    private let settings: Settings
    /// The positions to send, up to the end of the prompt.
    private let positions: Range<Int>
    /// The position from which on entries of window sets are wanted.
    private let windowStart: Int
    private var streams: [Int: Stream] = [:]
    private var source: (pages: KVPages, computed: Int)?

    /// The members that all frames share.
    package struct Settings: Sendable {
        package var session: UInt64
        package var transfer: UInt64
        /// A frame has more bytes than this only if one layer's entry at one position has more.
        package var maxBytes = 1 << 20

        package init(session: UInt64, transfer: UInt64) {
            self.session = session
            self.transfer = transfer
        }
    }

    /// The progress of what is sent to one process.
    private struct Stream: Sendable {
        let keyLayers: [Int]
        let windowLayers: [Int]
        var kind = KVFrame.Kind.keys
        /// The positions that are being sent, layer by layer.
        var block: Range<Int>
        /// The index of the next layer for which `block` is to be sent.
        var next = 0
        var isDone = false

        var layers: [Int] { kind == .keys ? keyLayers : windowLayers }
    }

    package init(
        _ plan: TransferPlan, process: Int, positions: Range<Int>, windowStart: Int, _ settings: Settings
    ) {
        self.plan = plan
        sender = process
        self.settings = settings
        self.positions = positions
        self.windowStart = windowStart
        for receiver in 0..<plan.target.processes {
            let keys = plan.layers(from: process, to: receiver, isWindow: false)
            let windows = plan.layers(from: process, to: receiver, isWindow: true)
            if keys.isEmpty && windows.isEmpty { continue }
            streams[receiver] = Stream(
                keyLayers: keys, windowLayers: windows,
                block: positions.lowerBound..<positions.lowerBound)
        }
    }

    /// True if all frames were made.
    package var isDone: Bool { streams.values.allSatisfy(\.isDone) }

    /// The keys of positions before `computed` are final, and are in these pages.
    package mutating func send(from pages: KVPages, computed: Int) { source = (pages, computed) }

    /// The pages are given up.
    package mutating func pause() { source = nil }

    /// Returns the next frame for a process, without its sequence number; `nil` if there is none now.
    package mutating func nextFrame(to receiver: Int, _ store: CacheStore) -> KVFrame? {
        guard let source, var stream = streams[receiver], !stream.isDone else { return nil }
        defer { streams[receiver] = stream }
        guard begin(&stream, source) else { return nil }
        let layers = stream.layers
        var frame = KVFrame(
            stream.kind, session: settings.session, transfer: settings.transfer, sender: sender, receiver: receiver,
            layers: layers[stream.next]..<layers[stream.next], positions: stream.block)
        while stream.next < layers.count, layers[stream.next] == frame.layers.upperBound {
            let before = frame.payload.count
            pack(layers[stream.next], into: &frame, source.pages, store)
            if frame.payload.count > settings.maxBytes, !frame.layers.isEmpty {
                frame.payload.removeLast(frame.payload.count - before)
                break
            }
            frame.layers = frame.layers.lowerBound..<frame.layers.upperBound + 1
            stream.next += 1
        }
        if stream.next == layers.count, stream.block.upperBound == positions.upperBound { finishKind(&stream, source) }
        return frame
    }

    /// Makes a stream's block the positions to send next. Returns false if there are none now.
    private func begin(_ stream: inout Stream, _ source: (pages: KVPages, computed: Int)) -> Bool {
        if stream.kind == .keys, stream.keyLayers.isEmpty { finishKind(&stream, source) }
        // Processes that exchange windows only have nothing to send before the prompt is computed.
        if stream.isDone || stream.layers.isEmpty { return false }
        // After a pause, the positions of the block may not be computed yet.
        if stream.next < stream.layers.count, !stream.block.isEmpty {
            return stream.block.upperBound <= source.computed
        }
        let end = stream.kind == .keys ? min(source.computed, positions.upperBound) : positions.upperBound
        let first = stream.block.upperBound
        guard first < end, stream.kind == .keys || source.computed >= positions.upperBound else { return false }
        stream.block = first..<min(end, first + maxPositions(stream))
        stream.next = 0
        return true
    }

    /// Goes on from keys to windows, or ends.
    private func finishKind(_ stream: inout Stream, _ source: (pages: KVPages, computed: Int)) {
        if stream.kind == .window || stream.windowLayers.isEmpty {
            stream.isDone = true
        } else if source.computed >= positions.upperBound {
            let held = source.pages.firstWindowPage * plan.source.format.pageSize
            let start = max(windowStart, held)
            stream.kind = .window
            stream.block = start..<start
            stream.next = stream.windowLayers.count
            if start >= positions.upperBound { stream.isDone = true }
        }
    }

    /// The number of positions of which one layer's entries fit into a frame.
    private func maxPositions(_ stream: Stream) -> Int {
        let bytes = stream.layers.map { layer in
            plan.sets(of: layer, isWindow: stream.kind == .window).reduce(0) {
                let set = plan.source.format[$1]
                return $0 + (set.bytesPerEntry + set.tokensPerEntry - 1) / set.tokensPerEntry
            }
        }
        return max(1, settings.maxBytes / max(1, bytes.max() ?? 1))
    }

    private func pack(_ layer: Int, into frame: inout KVFrame, _ pages: KVPages, _ store: CacheStore) {
        let isWindow = frame.kind == .window
        for set in plan.sets(of: layer, isWindow: isWindow) {
            let entries = plan.entries(of: set, frame.positions, from: sender, to: frame.receiver)
            guard store.pack(entries, of: set, in: pages.list(isWindow: isWindow), into: &frame.payload) else {
                preconditionFailure("transfer \(settings.transfer) sends entries that process \(sender) does not keep")
            }
        }
    }
}

extension KVPages {
    /// The pages of one kind, as a cache's store takes them.
    func list(isWindow: Bool) -> CacheStore.PageList {
        isWindow ? CacheStore.PageList(windowPages, first: firstWindowPage) : CacheStore.PageList(pages)
    }
}
