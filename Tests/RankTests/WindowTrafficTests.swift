import Inference
import KVCache
import Modeling
import Models
import Parallelism
import Planning
import Synchronization
import Tensors
import TestSupport
import Testing

/// Ranks of a data group send each other only the window entries that others read, and each computes the compressed
/// entries of its own tokens.
@Suite(.timeLimit(.minutes(15))) struct `Windows of context ranks` {
    // MARK: - Which entries a rank has

    /// A request whose chunks are computed by ranks, and the window entries of one reach that each rank has.
    private struct Trial {
        let parallel: ParallelConfiguration
        let format: CacheFormat
        let reach: WindowReach
        /// The positions of the current entries that each rank has.
        private var known: [Set<Int>]
        private(set) var computed = 0

        init(_ parallel: ParallelConfiguration, _ format: CacheFormat, _ reach: WindowReach) {
            (self.parallel, self.format, self.reach) = (parallel, format, reach)
            known = Array(repeating: [], count: parallel.stageRanks)
        }

        /// Computes a chunk, of whose drafts some are rejected.
        ///
        /// - Returns: a text for each row that would read an entry which its rank does not have.
        mutating func compute(_ count: Int, drafts: Int, rejected: Int) -> [String] {
            let tokens = [Int32](repeating: 0, count: count)
            let speculation = drafts > 0 ? StepPlan.Chunk.Speculation(drafted: drafts) : nil
            let chunk = StepPlan.Chunk(request: 1, tokens: tokens, start: computed, pages: [], speculation: speculation)
            let assignment = RowAssignment(
                StepPlan(number: 0, chunks: [chunk]), parallel, alignment: format.positionAlignment)
            let exchange = assignment.windowExchange(ofGroup: 0, reach, format)
            for rank in known.indices {
                known[rank].subtract(computed..<computed + count)
                known[rank].formUnion(assignment.rows[rank].map { computed + $0.offset })
            }
            for receiver in known.indices {
                for (owner, runs) in exchange.sent(to: [receiver]).enumerated() {
                    let rows = assignment.rows[owner].map { computed + $0.offset }
                    let sent = runs.flatMap(\.positions)
                    if !Set(sent).isSubset(of: rows) { return ["\(runs) are not among the rows \(rows)"] }
                    known[receiver].formUnion(sent)
                }
            }
            let problems = known.indices.flatMap { rank in missing(rank, assignment) }
            computed += count - rejected
            return problems
        }

        private func missing(_ rank: Int, _ assignment: RowAssignment) -> [String] {
            let first = rank - rank % parallel.tensor
            let readers = reach.readEvery == 1 ? first..<first + parallel.tensor : rank..<rank + 1
            return assignment.rows[readers].joined().compactMap { row in
                let position = computed + row.offset
                guard (position + 1) % reach.readEvery == 0 else { return nil }
                let absent = (max(0, position - reach.tokens + 1)...position).filter { !known[rank].contains($0) }
                return absent.isEmpty ? nil : "rank \(rank), row \(position), \(reach): \(absent)"
            }
        }

        /// Goes on from a border up to which the prefix cache would keep the window of the computed tokens.
        mutating func continueFromBorder(_ draw: inout SplitMix64) {
            let (page, window) = (format.pageSize, format.window)
            let first = CacheFormat.firstSharedPage(before: computed, window: window, pageSize: page)
            let span = (window - 1 + page - 1) / page
            let borders = (first...computed / page).filter { $0 - first >= min(span, $0) }
            if let border = borders.isEmpty ? nil : borders[draw.below(borders.count)] { computed = border * page }
        }
    }

    /// Returns a format with a window, and with inputs of entries that overlap or do not.
    private static func format(_ draw: inout SplitMix64) -> CacheFormat {
        let entry = 1 << (1 + draw.below(4))
        let window = 1 + draw.below(2 * entry + 8)
        let lanes = [KeySet.Lane(.f32, width: 1)]
        return CacheFormat(
            layers: [
                [
                    KeySet("window", lanes, lifetime: .window(tokens: window)),
                    KeySet(
                        "inputs", lanes, lifetime: .window(tokens: entry * (1 + draw.below(2))), readEvery: entry),
                    KeySet("entries", lanes, tokensPerEntry: entry),
                ]
            ], pageSize: entry << draw.below(3))
    }

    @Test(arguments: Array(1...400) + [UInt64.random(in: 0 ... .max)])
    func `are where rows read them, however a request is computed`(seed: UInt64) {
        var draw = SplitMix64(seed: seed)
        let parallel = ParallelConfiguration(
            context: 1 + draw.below(6), tensor: 1 + draw.below(2), strategy: PartitionStrategy.allCases[draw.below(3)])
        let format = Self.format(&draw)
        for reach in format.reaches {
            var trial = Trial(parallel, format, reach)
            for _ in 0..<12 {
                let drafts = draw.below(3) == 0 ? draw.below(10) : 0
                let count = 1 + drafts + (drafts == 0 && draw.below(2) == 0 ? draw.below(90) : 0)
                let problems = trial.compute(count, drafts: drafts, rejected: draw.below(drafts + 1))
                #expect(problems == [], "seed \(seed)")
                if draw.below(3) == 0 { trial.continueFromBorder(&draw) }
            }
        }
    }

    // MARK: - What is measured

    private static let tokens = 1024

    /// The steps of a prompt of `tokens` in chunks.
    private static func plans(chunk: Int) -> [StepPlan] {
        let pages = (0..<tokens / 128).map { Int32($0) }
        return stride(from: 0, to: tokens, by: chunk).enumerated().map { number, start in
            StepPlan(
                number: number,
                chunks: [
                    StepPlan.Chunk(
                        request: 1, tokens: (start..<min(start + chunk, tokens)).map { Int32($0 * 31 % 251) },
                        start: start, pages: pages, windowPages: pages)
                ])
        }
    }

    /// Runs a prompt of `tokens` in chunks, and compares every rank's bytes with the predicted ones.
    private func run(_ parallel: ParallelConfiguration, chunk: Int) throws -> [RankStatus] {
        let model = try Golden("v4").directory.load()
        let format = model.cacheFormat(.float32, pageSize: 128)
        let cost = LayoutCost(model.description, parallel, format: format)
        let pool = RankPool(
            model, EngineConfiguration(smallCache: parallel, tokens: 4096, alignment: model.positionAlignment))
        defer { pool.stop() }
        var predicted = [Double](repeating: 0, count: parallel.world)
        for plan in Self.plans(chunk: chunk) {
            _ = try pool.run(plan)
            let rows = StepRows(pool.rowAssignment(of: plan), format)
            for rank in predicted.indices {
                predicted[rank] += cost.bytes(ofRank: rank, rows).reduce(0) {
                    $1.transfer.isPublication ? $0 + $1.bytes : $0
                }
            }
        }
        let statuses = pool.status
        for (rank, status) in statuses.enumerated() {
            let measured = status.operations.first { $0.name == "keys" }?.bytes ?? 0
            #expect(Double(measured) == predicted[rank], "rank \(rank), \(parallel), chunks of \(chunk)")
        }
        return statuses
    }

    @Test(arguments: PartitionStrategy.allCases, [1024, 384, 300])
    func `move the predicted bytes, and a compressor's inputs are read once`(
        strategy: PartitionStrategy, chunk: Int
    ) throws {
        for context in [2, 4, 8] {
            let statuses = try run(ParallelConfiguration(context: context, strategy: strategy), chunk: chunk)
            // 256 entries and as many index keys of the last 8 tokens each, and 8 entries of 128.
            let all = 2 * 256 * 8 + 8 * 128
            let inputs = statuses.map(\.inputsCompressed)
            #expect(inputs.reduce(0, +) == all, "\(strategy), \(context) ranks, chunks of \(chunk)")
            if chunk == Self.tokens {
                #expect(inputs.allSatisfy { $0 == all / context }, "\(strategy), \(context) ranks: \(inputs)")
            }
        }
    }

    /// Four ranks have two neighbouring units of 128 tokens each. Worked out on paper: each border between two of them
    /// costs the second one the 15 keys before it, and in a layer with overlapping entries the inputs of 4 tokens. The
    /// other three ranks receive as many of the last tokens, and as many before the last page border inside the prompt,
    /// which is one of the last rank's.
    @Test func `move the tokens beside borders`() throws {
        let statuses = try run(ParallelConfiguration(context: 4, strategy: .contiguous), chunk: Self.tokens)
        // Three layers with a key of 24 numbers; 2 · 2 · (24 + index width) inputs; entries of 24 and index width.
        let index = try #require(try Golden("v4").directory.description.selection?.width)
        let keys = 3 * 15 * 24
        let inputs = 4 * 4 * (24 + index)
        let entries = 3 * (64 * (24 + index) + 2 * 24)
        let elements = [2, 3, 3, 1].map { $0 * (keys + inputs) + entries }
        #expect(statuses.map { $0.operations.first { $0.name == "keys" }!.bytes } == elements.map { 4 * $0 })
    }

    /// Each rank has a process of its own, so all that it receives is in messages.
    @Test(arguments: PartitionStrategy.allCases, [1024, 384, 300])
    func `move the predicted bytes in messages, in layers of each kind`(
        strategy: PartitionStrategy, chunk: Int
    ) throws {
        let model = try Golden("v4").directory.load()
        let parallel = ParallelConfiguration(context: 4, strategy: strategy)
        let cost = LayoutCost(
            model.description, parallel, format: model.cacheFormat(.float32, pageSize: 128))
        let transports = InMemoryTransport.network(parallel.world)
        defer { for transport in transports { transport.leave() } }
        // For each process, the bytes of the entries in each message that it sends, in order.
        let sent = Mutex([[Int]](repeating: [], count: parallel.world))
        for (process, transport) in transports.enumerated() {
            transport.damage { message in
                if message.kind == .rows { sent.withLock { $0[process].append(Self.entryBytes(in: message)) } }
                return message
            }
        }
        let plans = Self.plans(chunk: chunk)
        let predicted = try onEveryRank(of: parallel.world) { process -> [String: Double] in
            let processes = Processes(transports[process])
            guard process == 0 else {
                try RankFollower(model, processes).run()
                return [:]
            }
            defer { RankFollower.dismiss(processes) }
            var configuration = EngineConfiguration(
                smallCache: parallel, tokens: 4096, alignment: model.positionAlignment)
            configuration.processes = processes.count
            let pool = RankPool(model, configuration, processes: processes)
            defer { pool.stop() }
            for plan in plans { _ = try pool.run(plan) }
            return Self.predicted(cost, plans.map { StepRows(pool.rowAssignment(of: $0), cost.format) })
        }[0]
        var measured: [String: Double] = [:]
        // A collective is one message to each other process. The last one of a step gathers outputs, of which there are
        // none.
        let kinds =
            model.description.layers.flatMap { layer in
                layer.operations.compactMap { if case .publish = $0 { layer.kind } else { nil } }
            } + ["outputs"]
        for messages in sent.withLock({ $0 }) {
            try #require(messages.count == plans.count * kinds.count * (parallel.world - 1))
            for (number, bytes) in messages.enumerated() {
                measured[kinds[number / (parallel.world - 1) % kinds.count], default: 0] += Double(bytes)
            }
        }
        #expect(measured.removeValue(forKey: "outputs") == 0)
        #expect(measured == predicted, "\(strategy), chunks of \(chunk)")
        #expect(measured.count == 3 && measured.values.allSatisfy { $0 > 0 })
    }

    /// Returns the bytes of the entries in a message of one rank's rows, without the head and without their slots.
    private static func entryBytes(in message: Message) -> Int {
        let words = unsafe message.bodyCopy.withUnsafeBytes { unsafe Array($0.bindMemory(to: Int32.self).prefix(3)) }
        return words[1] == 0 ? 0 : 4 * Int(words[1] - 1) * Int(words[2])
    }

    /// Returns the bytes of keys that all ranks receive in some steps, by kind of layer.
    private static func predicted(_ cost: LayoutCost, _ steps: [StepRows]) -> [String: Double] {
        var bytes: [String: Double] = [:]
        for kind in cost.layerKinds {
            for transfer in cost.transfers(of: kind) where transfer.isPublication {
                for (rows, rank) in steps.flatMap({ rows in rows.owned.indices.map { (rows, $0) } }) {
                    bytes[kind.name, default: 0] +=
                        Double(kind.layers.count) * cost.bytes(transfer, stageRank: rank, rows)
                }
            }
        }
        return bytes
    }
}
