package import Inference
package import KVCache

/// A frame that has no payload and no sequence number yet, and the entries that are to be packed for it.
package struct UnpackedFrame: Sendable, Equatable {
    package var frame: KVFrame
    package var entries: [CacheEntries]

    /// Returns the frame with the bytes of its entries.
    package func with(_ bytes: [UInt8]) -> KVFrame {
        var frame = frame
        frame.payload = bytes
        return frame
    }
}

/// A KV sender is the part of one transfer that concerns the keys of one process of the prefill server: it cuts those that
/// the process sends into frames, for each receiving process in the order of positions and layers.
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

    /// True if all frames were returned.
    package var isDone: Bool { streams.values.allSatisfy(\.isDone) }

    /// The keys of positions before `computed` are final, and are in these pages.
    package mutating func send(from pages: KVPages, computed: Int) { source = (pages, computed) }

    /// The pages are given up.
    package mutating func pause() { source = nil }

    /// Returns the next frame for a process; `nil` if there is none now. Its entries may be packed until the pages are given
    /// up.
    package mutating func nextFrame(to receiver: Int) -> UnpackedFrame? {
        guard let source, var stream = streams[receiver], !stream.isDone else { return nil }
        defer { streams[receiver] = stream }
        guard begin(&stream, source) else { return nil }
        let layers = stream.layers
        var next = UnpackedFrame(
            frame: KVFrame(
                stream.kind, session: settings.session, transfer: settings.transfer, sender: sender, receiver: receiver,
                layers: layers[stream.next]..<layers[stream.next], positions: stream.block), entries: [])
        var bytes = 0
        while stream.next < layers.count, layers[stream.next] == next.frame.layers.upperBound {
            let entries = plan.entries(
                ofLayer: layers[stream.next], of: next.frame, in: source.pages, plan.source.format)
            bytes += plan.source.format.bytes(of: entries)
            if bytes > settings.maxBytes, !next.frame.layers.isEmpty { break }
            next.entries += entries
            next.frame.layers = next.frame.layers.lowerBound..<next.frame.layers.upperBound + 1
            stream.next += 1
        }
        if stream.next == layers.count, stream.block.upperBound == positions.upperBound { finishKind(&stream, source) }
        return next
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
            let start = max(windowStart, held, plan.firstWholeEntry(before: positions.upperBound))
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

}

extension TransferPlan {
    /// Returns the entries of one layer that a frame carries, with their pages on one side.
    ///
    /// - Parameters:
    ///   - pages: the pages of the request on that side.
    ///   - format: the format of that side's cache.
    func entries(ofLayer layer: Int, of frame: KVFrame, in pages: KVPages, _ format: CacheFormat) -> [CacheEntries] {
        let isWindow = frame.kind == .window
        let list = pages.list(isWindow: isWindow, frame.positions, pageSize: format.pageSize)
        return sets(of: layer, isWindow: isWindow).map { set in
            CacheEntries(
                entries(of: set, frame.positions, from: frame.sender, to: frame.receiver), of: set, in: list)
        }
    }
}

extension KVPages {
    /// Returns those pages of one kind that have entries of some positions, as a cache's store takes them.
    package func list(isWindow: Bool, _ positions: Range<Int>, pageSize: Int) -> CacheStore.PageList {
        let (list, first) = isWindow ? (windowPages, firstWindowPage) : (pages, 0)
        let wanted = positions.lowerBound / pageSize..<(positions.upperBound + pageSize - 1) / pageSize
        let range = wanted.clamped(to: first..<first + list.count)
        return CacheStore.PageList(
            Array(list[range.lowerBound - first..<range.upperBound - first]), first: range.lowerBound)
    }
}
