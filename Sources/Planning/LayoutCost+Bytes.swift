package import Modeling
import Parallelism
import Tensors

// MARK: - Bytes

extension LayoutCost {
    /// A dispatch count returns how many rows of rank `source` of the stage are dispatched to the experts at coordinate
    /// `place` of the expert axis.
    package typealias DispatchCount = (_ source: Int, _ place: Int) -> Int

    /// Returns the bytes that one rank receives from others in a step, in all its layers together, by collective in the
    /// order of first use.
    ///
    /// - Parameter rank: The rank's number in the whole job.
    package func bytes(ofRank rank: Int, _ rows: StepRows) -> [(transfer: Transfer, bytes: Double)] {
        let (stage, stageRank) = rank.quotientAndRemainder(dividingBy: parallel.stageRanks)
        var totals: [(transfer: Transfer, bytes: Double)] = []
        func add(_ transfer: Transfer, times: Int) {
            let bytes = Double(times) * bytes(transfer, stageRank: stageRank, rows)
            if let index = totals.firstIndex(where: { $0.transfer.name == transfer.name }) {
                totals[index].bytes += bytes
            } else {
                totals.append((transfer, bytes))
            }
        }
        for transfer in transfersOfStages where takesPart(transfer, stage: stage) && transfer.name == "stage" {
            add(transfer, times: 1)
        }
        let here = parallel.layers(ofStage: stage, total: model.layers.count)
        for kind in layerKinds {
            let count = kind.layers.count(where: here.contains)
            if count > 0 { for transfer in transfers(of: kind) { add(transfer, times: count) } }
        }
        for transfer in transfersOfStages where takesPart(transfer, stage: stage) && transfer.name != "stage" {
            add(transfer, times: 1)
        }
        return totals
    }

    /// Returns the memory in which one rank keeps rows that it sends: two buffers for each group it is a member of, as
    /// large as the largest contribution, with a quarter to spare; four for the next pipeline stage.
    ///
    /// - Parameter rows: the number of rows of a step that a rank owns.
    package func sendBytes(rows: Int) -> Int {
        var largest: [Axes: Int] = [:]
        for transfer in layerKinds.flatMap(transfers) + transfersOfStages where transfer.ranks > 1 {
            let copies = copies(of: transfer)
            let buffers = transfer.kind == .send ? 4 : 2
            let perRow = transfer.bytesPerRow + DType.f32.bytes(of: transfer.selectedColumns ?? 0)
            largest[transfer.axes] = max(largest[transfer.axes] ?? 0, buffers * copies * perRow * rows)
        }
        return largest.values.reduce(0) { $0 + $1 + $1 / 4 }
    }

    /// Returns how many times a rank's contribution to a collective has the rows that it owns, at most.
    private func copies(of transfer: Transfer) -> Int {
        // Ranks that share widths have addends of all rows that were sent to their experts, block by block.
        if case .expertTensorSums = transfer.flow {
            return parallel.stageRanks * ExpertExchange.blocks(of: model.parallelShape.experts, parallel)
        }
        return switch transfer.kind {
        case .reduceScatter: transfer.ranks
        case .allToAll: min(transfer.ranks, transfer.isExpected ? model.experts?.gate.expertsPerToken ?? 1 : .max)
        case .allGather, .sharedMemory, .send: 1
        }
    }

    private func takesPart(_ transfer: Transfer, stage: Int) -> Bool {
        transfer.kind == .send ? stage > 0 : stage == parallel.pipeline - 1
    }

    /// Returns the bytes that a rank of a stage receives from others in one such collective.
    ///
    /// - Parameter isDispatched: The number of rows dispatched from each rank to each place, where that is known; `nil`
    ///   takes the expected numbers.
    package func bytes(
        _ transfer: Transfer, stageRank rank: Int, _ rows: StepRows, isDispatched: DispatchCount? = nil
    ) -> Double {
        switch transfer.condition {
        case .positionsFrom(let position):
            let together = parallel.ranks(around: rank, along: .tensor)
            if !together.contains(where: { rows.maxPosition[$0] >= position }) { return 0 }
        case .dcpRowsFrom(let position):
            let owners = parallel.ranks(around: rank, along: .kvSharding)
            if !owners.contains(where: { rows.maxDCPPosition[$0] >= position }) { return 0 }
        case .always, .dcpRows, .gatheredKeys, .chosenExperts, .outputs: break
        }
        let dispatched = DispatchedRows(cost: self, owned: rows.owned, known: isDispatched)
        let foreign: Double
        switch transfer.flow {
        case .edge(let edge): foreign = foreignRows(edge, rank, rows.owned.map(Double.init))
        case .window(let edge, let reach):
            foreign =
                rows.receivedWindows[reach].map { Double($0[rank]) }
                ?? foreignRows(edge, rank, rows.owned.map(Double.init))
        case .published(let edge, let tokens): foreign = foreignRows(edge, rank, rows.entries(of: tokens))
        case .dispatch: foreign = dispatched.arriving(at: rank)
        case .expertTensorSums:
            let blocks = ExpertExchange.blocks(of: model.parallelShape.experts, parallel)
            foreign = Double((transfer.ranks - 1) * blocks) * dispatched.completed(by: rank)
        case .combine: foreign = dispatched.returning(to: rank)
        case .stageInput: foreign = Double(rows.owned[rank])
        case .outputs: foreign = Double(rows.outputs.reduce(0, +) - rows.outputs[rank])
        case .logits:
            let wanted = rows.outputs.reduce(0, +)
            foreign = Double(
                (transfer.ranks - 1) * stride(from: rank, to: wanted, by: transfer.ranks).underestimatedCount)
        case .gatheredKeys:
            let together = parallel.ranks(around: rank, along: transfer.axes)
            foreign = Double(together.reduce(0) { $0 + rows.gatheredKeys[$1] } - rows.gatheredKeys[rank])
        case .dcpRows(let exchange):
            return Double(bytes(exchange, DCPRows(parallel, rows, rank), perRow: transfer.bytesPerRow))
        }
        return foreign * Double(transfer.bytesPerRow)
    }

    /// Returns the bytes of one exchange of `DecodeContextParallel`: this rank receives queries of the other ranks'
    /// rows, and for each of its own rows a partial result from every other owner.
    private func bytes(_ exchange: Transfer.DCPExchange, _ dcpRowIndices: DCPRows, perRow bytes: Int) -> Int {
        let others = dcpRowIndices.owners.count - 1
        switch exchange {
        case .indexQueries: return (dcpRowIndices.own.sum - dcpRowIndices.own.here) * bytes
        case .candidates: return others * dcpRowIndices.own.here * bytes
        case .partialAttention: return others * dcpRowIndices.attended.here * bytes
        case .queries(let topK, let first):
            // The selected positions are sent with the queries if any row selects.
            let selects = first.map { dcpRowIndices.maxAttendedPosition >= $0 } ?? false
            let selected = selects ? topK! * MemoryLayout<Int32>.size : 0
            return (dcpRowIndices.attended.sum - dcpRowIndices.attended.here) * (bytes + selected)
        }
    }

    /// Counts the DCP rows of the ranks that own keys together with one rank.
    private struct DCPRows {
        /// The owners' numbers in the stage.
        let owners: [Int]
        /// The numbers of own DCP rows: of this rank, and of all owners together.
        let own: (here: Int, sum: Int)
        /// The numbers of attended DCP rows, which are those of the ranks a rank shares heads with: for this rank, and
        /// summed over all owners.
        let attended: (here: Int, sum: Int)
        /// The largest position of an attended row.
        let maxAttendedPosition: Int

        init(_ parallel: ParallelConfiguration, _ rows: StepRows, _ rank: Int) {
            func sharing(_ member: Int) -> [Int] { parallel.ranks(around: member, along: .tensor) }
            func attended(_ member: Int) -> Int { sharing(member).reduce(0) { $0 + rows.dcpRows[$1] } }
            owners = parallel.ranks(around: rank, along: .kvSharding)
            own = (rows.dcpRows[rank], owners.reduce(0) { $0 + rows.dcpRows[$1] })
            self.attended = (attended(rank), owners.reduce(0) { $0 + attended($1) })
            maxAttendedPosition = owners.flatMap(sharing).reduce(-1) { max($0, rows.maxDCPPosition[$1]) }
        }
    }

    private func foreignRows(_ edge: Edge, _ rank: Int, _ owned: [Double]) -> Double {
        func held(_ layout: Layout) -> Double {
            parallel.ranks(around: rank, along: Axes.stage.subtracting(parallel.onMesh(layout.rows)))
                .reduce(0) { $0 + owned[$1] }
        }
        return switch edge.move {
        case .nothing: 0
        case .allGather: held(edge.to) - held(edge.from)
        case .reduceScatter: Double(parallel.degree(edge.axes) - 1) * held(edge.to)
        }
    }

    /// Counts the rows dispatched to the ranks of their experts.
    private struct DispatchedRows {
        let cost: LayoutCost
        let owned: [Int]
        let known: DispatchCount?

        private var parallel: ParallelConfiguration { cost.parallel }
        private var widths: Int { parallel.degree(.expertTensor) }

        private func place(_ rank: Int) -> Int { parallel.place(of: rank, along: .expert) }
        private func widthPlace(_ rank: Int) -> Int { parallel.place(of: rank, along: .expertTensor) }

        private func rows(of source: Int, at place: Int) -> Double {
            if let known { return Double(known(source, place)) }
            return Double(owned[source]) * (parallel.exchange == .gathered ? 1 : cost.dispatchProbabilities[place])
        }

        /// Returns how many of `rows` the rank at `place` of the expert-tensor axis sums up: whole rows if their number
        /// is known, and the average otherwise.
        private func share(_ rows: Double, at place: Int) -> Double {
            guard known != nil || parallel.exchange == .gathered else { return rows / Double(widths) }
            let rows = Int(rows)
            return Double(rows * (place + 1) / widths - rows * place / widths)
        }

        func arriving(at rank: Int) -> Double {
            owned.indices.reduce(0) { $1 == rank ? $0 : $0 + rows(of: $1, at: place(rank)) }
        }

        func completed(by rank: Int) -> Double {
            owned.indices.reduce(0) { $0 + share(rows(of: $1, at: place(rank)), at: widthPlace(rank)) }
        }

        func returning(to rank: Int) -> Double {
            owned.indices.reduce(0) {
                $1 == rank ? $0 : $0 + share(rows(of: rank, at: place($1)), at: widthPlace($1))
            }
        }
    }
}
