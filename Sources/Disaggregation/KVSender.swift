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
/// It sends what is computed, and knows how far it has come. While a step computes positions, it sends groups of layers of
/// them that are stored already, but never the last group: that waits for the end of the step. So a receiver has all
/// layers of a position only if its step has succeeded. If the pages are given up (`pause`), the sender goes on from where
/// it is when the keys are computed again: they are the same bytes.
package struct KVSender: Sendable {
    private let plan: TransferPlan
    private let sender: Int
    private let settings: Settings
    /// The positions to send, up to the end of the prompt.
    private let positions: Range<Int>
    /// The position from which on entries of window sets are wanted.
    private let windowStart: Int
    private var streams: [Int: Stream] = [:]
    private var source: Source?

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

    /// The pages of the keys, and how far they are computed.
    private struct Source: Sendable {
        let pages: KVPages
        let progress: PromptProgress
    }

    /// The progress of what is sent to one process: `region` by region, in each the layers of one pass after the other, and
    /// in a pass one block of positions after the other. Computed positions need one pass.
    private struct Stream: Sendable {
        let keyLayers: [Int]
        let windowLayers: [Int]
        var kind = KVFrame.Kind.keys
        /// The positions that are being sent: those before it are sent, of those behind it none is.
        var region: Range<Int>
        /// The indices of the layers that are being sent of `region`; those before them are sent.
        var pass: Range<Int>
        /// The positions of `region` that are being sent, layer by layer.
        var block: Range<Int>
        /// The index of the next layer for which `block` is to be sent.
        var next: Int
        var isDone = false

        var layers: [Int] { kind == .keys ? keyLayers : windowLayers }

        init(keyLayers: [Int], windowLayers: [Int], start: Int) {
            self.keyLayers = keyLayers
            self.windowLayers = windowLayers
            region = start..<start
            block = region
            pass = keyLayers.count..<keyLayers.count
            next = keyLayers.count
        }

        mutating func beginWindows(at start: Int) {
            kind = .window
            region = start..<start
            block = region
            pass = windowLayers.count..<windowLayers.count
            next = windowLayers.count
        }

        /// True if all layers of `region` are sent.
        var hasSentRegion: Bool {
            next == layers.count && pass.upperBound == next && block.upperBound == region.upperBound
        }
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
            streams[receiver] = Stream(keyLayers: keys, windowLayers: windows, start: positions.lowerBound)
        }
    }

    /// True if all frames were returned.
    package var isDone: Bool { streams.values.allSatisfy(\.isDone) }

    /// True if more may be sent before a step in flight ends.
    var awaitsLayers: Bool { !(source?.progress.steps.isEmpty ?? true) && !isDone }

    /// The keys may be sent from these pages, as far as they are computed.
    package mutating func send(from pages: KVPages, _ progress: PromptProgress) {
        source = Source(pages: pages, progress: progress)
    }

    /// The pages are given up.
    package mutating func pause() { source = nil }

    /// Returns the next frame for a process; `nil` if there is none now. Its entries may be packed until the pages are given
    /// up.
    ///
    /// - Parameter storedLayers: returns the number of layers, from the first one on, of which the sending process has the
    ///   keys of a step in flight, given by its number.
    package mutating func nextFrame(to receiver: Int, _ storedLayers: (Int) -> Int) -> UnpackedFrame? {
        guard let source, var stream = streams[receiver], !stream.isDone else { return nil }
        defer { streams[receiver] = stream }
        guard begin(&stream, source, storedLayers) else { return nil }
        let layers = stream.layers
        var next = UnpackedFrame(
            frame: KVFrame(
                stream.kind, session: settings.session, transfer: settings.transfer, sender: sender, receiver: receiver,
                layers: layers[stream.next]..<layers[stream.next], positions: stream.block), entries: [])
        var bytes = 0
        while stream.next < stream.pass.upperBound, layers[stream.next] == next.frame.layers.upperBound {
            let entries = plan.entries(
                ofLayer: layers[stream.next], of: next.frame, in: source.pages, plan.source.format)
            bytes += plan.source.format.bytes(of: entries)
            if bytes > settings.maxBytes, !next.frame.layers.isEmpty { break }
            next.entries += entries
            next.frame.layers = next.frame.layers.lowerBound..<next.frame.layers.upperBound + 1
            stream.next += 1
        }
        if stream.hasSentRegion, stream.region.upperBound == positions.upperBound { finishKind(&stream, source) }
        return next
    }

    /// Makes a stream's block the positions to send next, of layers that are there. Returns false if there are none now.
    private func begin(_ stream: inout Stream, _ source: Source, _ storedLayers: (Int) -> Int) -> Bool {
        if stream.kind == .keys, stream.keyLayers.isEmpty { finishKind(&stream, source) }
        // Processes that exchange windows only have nothing to send before the prompt is computed.
        if stream.isDone || stream.layers.isEmpty { return false }
        if stream.hasSentRegion {
            guard let end = regionEnd(stream, source, storedLayers) else { return false }
            stream.region = stream.region.upperBound..<end
            stream.pass = 0..<0
            stream.next = 0
            stream.block = stream.region.upperBound..<stream.region.upperBound
        }
        let available = availableLayers(of: stream, until: stream.region.upperBound, source, storedLayers)
        if stream.next == stream.pass.upperBound {
            if stream.block.upperBound == stream.region.upperBound {
                guard available > stream.pass.upperBound else { return false }
                stream.pass = stream.pass.upperBound..<available
                stream.block = stream.region.lowerBound..<stream.region.lowerBound
            }
            let first = stream.block.upperBound
            stream.block = first..<min(stream.region.upperBound, first + maxPositions(stream))
            stream.next = stream.pass.lowerBound
        }
        // After a pause, the layers of the pass may not be computed yet.
        return stream.pass.upperBound <= available
    }

    /// Returns the end of the positions to send next: of those that are computed, or else of those that one step in flight
    /// computes, if some of their layers are there; `nil` if there are none now.
    private func regionEnd(_ stream: Stream, _ source: Source, _ storedLayers: (Int) -> Int) -> Int? {
        let first = stream.region.upperBound
        let computed = min(source.progress.computed, positions.upperBound)
        if stream.kind == .window { return computed == positions.upperBound && first < computed ? computed : nil }
        if first < computed { return computed }
        guard first < positions.upperBound, let step = source.progress.steps.first(where: { first < $0.end }) else {
            return nil
        }
        let end = min(step.end, positions.upperBound)
        return availableLayers(of: stream, until: end, source, storedLayers) > 0 ? end : nil
    }

    /// Returns the number of a stream's layers, from its first one on, of which the keys of all positions before `end` are
    /// final: all where these are computed; whole groups without the last one while a step computes them.
    private func availableLayers(
        of stream: Stream, until end: Int, _ source: Source, _ storedLayers: (Int) -> Int
    ) -> Int {
        if end <= source.progress.computed { return stream.layers.count }
        guard stream.kind == .keys, let step = source.progress.steps.first(where: { end <= $0.end }) else { return 0 }
        let group = plan.source.format.layerGroup
        let stored = min(storedLayers(step.number), stream.layers.last!)
        let end = stored / group * group
        return stream.layers.prefix { $0 < end }.count
    }

    /// Goes on from keys to windows, or ends.
    private func finishKind(_ stream: inout Stream, _ source: Source) {
        if stream.kind == .window || stream.windowLayers.isEmpty {
            stream.isDone = true
        } else if source.progress.computed >= positions.upperBound {
            let held = source.pages.firstWindowPage * plan.source.format.pageSize
            let start = max(windowStart, held, plan.firstWholeEntry(before: positions.upperBound))
            stream.beginWindows(at: start)
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
