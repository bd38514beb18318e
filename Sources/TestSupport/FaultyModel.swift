package import KVCache
package import Modeling
package import Parallelism
import Synchronization
package import Tensors

/// A model whose rows depend on their token and position alone, and which can have a fault.
///
/// It crosses the edges of attention, so it runs in every parallel configuration; without a fault, it is bitwise equal
/// to one rank where degrees are powers of two. Tests use it to check that a comparison of parallel configurations
/// finds and names a difference.
package final class FaultyModel: Model {
    /// The faults that the model can have. Faults of values occur only in runs with several ranks.
    package enum Fault: Sendable {
        /// Flips one bit of a row's third value after this stage of this layer, on the rank that owns the row.
        case flipsBit(layer: Int, stage: Stage, request: UInt64, position: Int)
        /// Flips that bit the first time only.
        case flipsBitOnce(layer: Int, stage: Stage, request: UInt64, position: Int)
        /// Flips that bit on this rank only.
        case flipsBitOnRank(Int, layer: Int, stage: Stage, request: UInt64, position: Int)
        /// Adds the addends of the sum that tensor ranks share from the first to the last instead of as a tree.
        case addsInSequence(layer: Int)
        /// Throws on this rank at the beginning of this layer.
        case fails(rank: Int, layer: Int)
    }

    package let layers = 3
    private let fault: Fault?
    private let hasFlipped = Atomic(false)

    package init(_ fault: Fault? = nil) { self.fault = fault }

    package var description: ModelDescription {
        ModelDescription(
            modelType: "faulty", vocabularySize: 32, hiddenSize: 8, stateWidth: 8, contextLength: 256,
            layers: Array(repeating: LayerDescription(kind: "faulty", operations: []), count: layers),
            draftLayers: [], embedding: .init([]), finalNorm: .init([]), head: .init([]),
            parallelShape: ModelShape(
                layers: layers, heads: 8, valueWidth: 1, experts: 8, expertWidth: 8, denseWidth: 8, sharedWidth: 0),
            formats: WeightFormats(.f32))
    }

    package func cacheFormat(_ type: CacheType, pageSize: Int) -> CacheFormat {
        CacheFormat(
            layers: Array(
                repeating: [KeySet("keys", [KeySet.Lane(as: type, width: 8, fp8: .perEntry)])], count: layers),
            pageSize: pageSize)
    }

    package func forward(_ step: Step, _ seat: Seat, into hidden: View) throws(GroupFailure) {
        let mark = seat.scratch.mark()
        defer { seat.scratch.reset(to: mark) }
        let stream = seat.scratch.rows(step.own.count, stateWidth)
        try seat.enter(stream) {
            for row in 0..<stream.rows {
                for column in 0..<stateWidth {
                    stream[row, column] = Self.number(Int(step.tokens[row]), Int(step.own.positions[row]), column)
                }
            }
        }
        for layer in seat.layers(of: layers) { try forward(stream, layer: layer, step, seat) }
        if try seat.leave(stream) { return }
        for row in 0..<step.outputs.count {
            let source = Int(step.outputs[row])
            hidden.rows(row..<row + 1).transfer(from: stream.rows(source..<source + 1))
        }
    }

    private func forward(_ stream: View, layer: Int, _ step: Step, _ seat: Seat) throws(GroupFailure) {
        if case .fails(seat.rank, layer) = fault { throw GroupFailure(rank: seat.rank, reason: "a fault of the test") }
        pass(.attentionNorm, stream, layer: layer, step, seat)
        let rows = try seat.cross(Sharding.query, stream)
        let addend = seat.scratch.rows(rows.rows, stateWidth)
        let part = seat.part(of: stateWidth, along: .tensor)
        for row in 0..<rows.rows {
            for column in 0..<stateWidth {
                let products = part.map { rows[row, $0] * Self.number(layer, $0, column) }
                addend[row, column] = isSequential(layer, seat) ? products.reduce(0, +) : Self.treeSum(products[...])
            }
        }
        let sum = try seat.cross(Sharding.attentionOutput, addend)
        pass(.attention, sum, layer: layer, step, seat)
        seat.kernels.add(stream, sum, into: stream)
        pass(.output, stream, layer: layer, step, seat)
    }

    package func logits(_ hidden: View, vocabulary: Range<Int>, _ seat: Seat, into logits: View) {
        for row in 0..<hidden.rows {
            for (column, token) in vocabulary.enumerated() {
                logits[row, column] = (0..<stateWidth).reduce(0) { $0 + hidden[row, $1] * Self.number(token, $1, 9) }
            }
        }
    }

    /// Returns a number from -0.5 to 0.5, whose binary representations have many lengths.
    private static func number(_ a: Int, _ b: Int, _ c: Int) -> Float {
        Float((a * 31 + b * 17 + c * 57 + a * b * 7) % 97) / 97 - 0.5
    }

    private static func treeSum(_ values: ArraySlice<Float>) -> Float {
        if values.count == 1 { return values.first! }
        let half = values.startIndex + values.count / 2
        return treeSum(values[..<half]) + treeSum(values[half...])
    }

    private func isSequential(_ layer: Int, _ seat: Seat) -> Bool {
        guard case .addsInSequence(layer) = fault else { return false }
        return seat.configuration.world > 1
    }

    /// Applies the fault to a stage's value, then records the value.
    private func pass(_ stage: Stage, _ value: View, layer: Int, _ step: Step, _ seat: Seat) {
        for request in step.own.requests {
            for row in request.rows {
                let position = Int(step.own.positions[row])
                if isFlipped(stage, layer, request.request, position, seat) {
                    value[row, 2] = Float(bitPattern: value[row, 2].bitPattern ^ 1 << 18)
                }
                step.recorder?.record(
                    stage, layer: layer, value.rows(row..<row + 1).elements, request: request.request,
                    position: position)
            }
        }
    }

    private func isFlipped(_ stage: Stage, _ layer: Int, _ request: UInt64, _ position: Int, _ seat: Seat) -> Bool {
        guard seat.configuration.world > 1 else { return false }
        switch fault {
        case .flipsBit(layer, stage, request, position): return true
        case .flipsBitOnRank(seat.rank, layer, stage, request, position): return true
        case .flipsBitOnce(layer, stage, request, position):
            return !hasFlipped.exchange(true, ordering: .relaxed)
        default: return false
        }
    }
}
