package import KVCache
package import Modeling
package import Parallelism
package import Tensors

/// A model that wraps another one and damages its cache in one way, as faults of a prefix cache, of a cache format or
/// of key owners could. Tests use it to check that a comparison with one rank finds such damage; one rank that finds no
/// prefix in its cache is never affected.
package final class DamagedCache: Model {
    package enum Damage: Sendable {
        /// Overwrites the first key of a request's cached prefix, in this layer, with the second one. Prompts must not
        /// be cut into chunks: only then do several rows that are not a request's first follow a cached prefix.
        case stalePage(layer: Int)
        /// Doubles the last scale of an FP8 entry's first lane when the rank that computes the entry ends its step. Other
        /// ranks that share the request may read the last layer's entry before or after that.
        case wrongScale(layer: Int, request: UInt64, position: Int)
        /// Makes this rank miss the last key of the DCP rows that it attends for.
        case ownerOffByOne(rank: Int)
    }

    private let model: any Model
    private let damage: Damage?

    package init(_ model: any Model, _ damage: Damage?) {
        self.model = model
        self.damage = damage
    }

    package var vocabularySize: Int { model.vocabularySize }
    package var description: ModelDescription { model.description }

    package func cacheFormat(_ type: CacheType, pageSize: Int) -> CacheFormat {
        model.cacheFormat(type, pageSize: pageSize)
    }

    package func logits(_ hidden: View, vocabulary: Range<Int>, _ seat: Seat, into logits: View) {
        model.logits(hidden, vocabulary: vocabulary, seat, into: logits)
    }

    package func draftLogits(_ states: View, vocabulary: Range<Int>, _ seat: Seat, into logits: View) {
        model.draftLogits(states, vocabulary: vocabulary, seat, into: logits)
    }

    package func forward(_ step: Step, _ seat: Seat, into hidden: View) throws(GroupFailure) {
        switch damage {
        case .stalePage(let layer):
            overwriteWhatWasFound(step, seat, layer: layer)
            try model.forward(step, seat, into: hidden)
        case .wrongScale(let layer, let request, let position):
            try model.forward(step, seat, into: hidden)
            guard seat.configuration.world > 1 else { return }
            for rows in step.own.requests where rows.request == request {
                for row in rows.rows where step.own.positions[row] == position {
                    doubleScale(in: step.cache.lane(0, of: KeySetID(layer: layer)), Int(step.entries[0].slots[row]))
                }
            }
        case .ownerOffByOne(seat.rank): try model.forward(shifted(step, seat), seat, into: hidden)
        case .ownerOffByOne, nil: try model.forward(step, seat, into: hidden)
        }
    }

    /// Overwrites a cached key on the rank that computes the first row after the prefix, before other ranks read keys.
    private func overwriteWhatWasFound(_ step: Step, _ seat: Seat, layer: Int) {
        guard seat.layers(of: parallelShape.layers).contains(layer), seat.place(along: .tensor) == 0 else { return }
        let lane = step.cache.lane(0, of: KeySetID(layer: layer))
        for request in step.own.requests where request.rows.count > 1 {
            let first = Int(step.own.positions[request.rows.lowerBound])
            guard first > 1, first % step.cache.format.pageSize == 0 else { continue }
            let pages = request.pages[0]
            lane.overwrite(Int(pages.slot(of: 0)), with: lane.bytes(ofEntry: Int(pages.slot(of: 1))))
        }
    }

    /// Increments the exponent of the last scale of an entry.
    private func doubleScale(in lane: CacheLane, _ entry: Int) {
        var bytes = lane.bytes(ofEntry: entry)
        let scales = (lane.width + lane.group - 1) / lane.group
        let end = (lane.width + 3) / 4 * 4 + scales * lane.scaleType.bytes
        switch lane.scaleType {
        case .e8m0: bytes[end - 1] += 1
        case .f32:
            let bits = UInt16(bytes[end - 1]) << 8 | UInt16(bytes[end - 2])
            bytes[end - 1] = UInt8((bits + 0x80) >> 8)
            bytes[end - 2] = UInt8((bits + 0x80) & 0xFF)
        }
        lane.overwrite(entry, with: bytes)
    }

    /// Returns the step with all attended DCP rows one position earlier.
    private func shifted(_ step: Step, _ seat: Seat) -> Step {
        guard let dcpRows = step.dcpRows else { return step }
        let rows = dcpRows.attended
        let positions = seat.scratch.indices(rows.count)
        for row in 0..<rows.count { positions[row] = max(rows.positions[row] - 1, 0) }
        return Step(
            own: step.own, tokens: step.tokens, entries: step.entries, windows: step.windows, attended: step.attended,
            dcpRows: Step.DCPRows(
                own: dcpRows.own, attended: Step.Rows(positions: positions, requests: rows.requests),
                ownCounts: dcpRows.ownCounts, attendedCounts: dcpRows.attendedCounts, ownRows: dcpRows.ownRows,
                attendedRows: dcpRows.attendedRows),
            outputs: step.outputs, cache: step.cache, gatheredKeys: step.gatheredKeys, recorder: step.recorder)
    }
}
