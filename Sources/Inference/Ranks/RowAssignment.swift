import Modeling
package import Parallelism

/// A row assignment gives every row of a step exactly one owner among the ranks of a stage.
///
/// It is a pure function of the plan and the configuration, so ranks need not tell each other who owns which row.
package struct RowAssignment: Sendable {
    package let plan: StepPlan
    /// The rows of each rank of the stage, in the order of the plan.
    package let rows: [[Row]]
    /// The indices of the chunks that use query-gather attention; the owners of other chunks' rows read all of their
    /// keys.
    package let dcpChunks: Set<Int>
    /// The rows of each rank of the stage whose logits are needed.
    package let outputs: [[Output]]
    /// Decides between query-gather and key-gather attention where processes divide the KV cache; `nil` elsewhere.
    let processSharding: ProcessKVSharding?
    let configuration: ParallelConfiguration

    /// A row is one token of one chunk of the plan.
    package struct Row: Sendable, Equatable {
        /// The chunk's index in the plan.
        package let chunk: Int
        /// The row's index among the chunk's tokens.
        package let offset: Int
    }

    /// An output is a row whose logits are needed.
    package struct Output: Sendable, Equatable {
        /// The row's index among the rows of its owner.
        package let row: Int
        package let chunk: Int
        /// The row's index among the chunk's tokens.
        package let offset: Int
        /// The known next token that the row's logits score, if any.
        package let target: Int32?
    }

    /// - Parameter alignment: positions that stay with one rank; see `Model.positionAlignment`.
    package init(
        _ plan: StepPlan, _ configuration: ParallelConfiguration, processSharding: ProcessKVSharding? = nil,
        alignment: Int = 1
    ) {
        var rows: [[Row]] = []
        for group in 0..<configuration.data {
            let chunks = plan.chunks.indices.filter { plan.chunks[$0].group == group }
            let all = chunks.flatMap { chunk in
                plan.chunks[chunk].tokens.indices.map { Row(chunk: chunk, offset: $0) }
            }
            rows += Self.units(of: chunks.map { plan.chunks[$0] }, configuration, alignment: alignment)
                .map { $0.joined().map { all[$0] } }
        }
        self.init(plan, rows: rows, configuration, processSharding: processSharding)
    }

    /// Returns the units of positions that each rank of a data group owns, as the indices of their rows among those of the
    /// group's chunks. A unit is part of one chunk.
    static func units(
        of chunks: [StepPlan.Chunk], _ configuration: ParallelConfiguration, alignment: Int
    ) -> [[Range<Int>]] {
        TokenPartition(
            configuration.strategy, chunks.map { $0.start..<$0.start + $0.tokens.count },
            ranks: configuration.context, unit: alignment
        ).units(dividedBy: configuration.tensor)
    }

    /// - Parameter rows: The rows of each rank of the stage, all of chunks of the rank's own data group.
    init(
        _ plan: StepPlan, rows: [[Row]], _ configuration: ParallelConfiguration,
        processSharding: ProcessKVSharding? = nil
    ) {
        self.plan = plan
        self.rows = rows
        self.configuration = configuration
        let ranks = configuration.context * configuration.tensor
        dcpChunks = (0..<configuration.data).reduce(into: []) { dcpChunks, group in
            let chunks = plan.chunks.indices.filter { plan.chunks[$0].group == group }
            if let processSharding {
                return dcpChunks.formUnion(Set(chunks).subtracting(processSharding.gatheredKeys(among: chunks, plan)))
            }
            dcpChunks.formUnion(
                Self.dcpChunks(
                    among: chunks, rows[group * ranks..<(group + 1) * ranks], plan, configuration.kvSharding))
        }
        self.processSharding = processSharding
        outputs = rows.map { Self.outputs(among: $0, of: plan) }
    }

    /// True if the next-token block runs after the layers.
    var drafts: Bool { plan.chunks.contains { $0.speculation != nil } }

    /// Returns the pages of a data group's key-gather chunks; a page that requests share occurs more than once.
    func gatheredPages(ofGroup group: Int) -> [GatheredKeys.Page] {
        guard let pageSize = processSharding?.pageSize else { return [] }
        return plan.chunks.enumerated().filter { $1.group == group && !dcpChunks.contains($0) }.flatMap { _, chunk in
            chunk.pages.enumerated().map { index, page in
                GatheredKeys.Page(number: page, known: min(max(chunk.start - index * pageSize, 0), pageSize))
            }
        }
    }

    /// Returns the chunks that use query-gather attention where every process stores all keys. Where owners of rows
    /// read all keys of their rows, a step takes as long as the rank with the most keys: good for many rows, bad for a
    /// few rows of long contexts. Query-gather attention divides each row's keys evenly and costs four exchanges per
    /// layer. Chunks with fewer rows than there are key owners use it where it lowers the number of keys of the longest
    /// rank by a fifth.
    private static func dcpChunks(
        among chunks: [Int], _ rows: ArraySlice<[Row]>, _ plan: StepPlan, _ kvSharding: KVSharding
    ) -> [Int] {
        let few = chunks.filter { chunk in
            let tokens = plan.chunks[chunk].tokens.count
            return tokens < kvSharding.ranks && plan.chunks[chunk].start + tokens >= kvSharding.minKeys
        }
        if few.isEmpty { return [] }
        func keys(_ row: Row) -> Int { plan.chunks[row.chunk].start + row.offset + 1 }
        let allKeys = rows.map { $0.reduce(0) { $0 + keys($1) } }
        let otherKeys = rows.map { $0.reduce(0) { few.contains($1.chunk) ? $0 : $0 + keys($1) } }
        let dcpKeys = zip(allKeys, otherKeys).reduce(0) { $0 + $1.0 - $1.1 }
        return Double(otherKeys.max()!) + Double(dcpKeys) / Double(rows.count) <= 0.8 * Double(allKeys.max()!)
            ? few : []
    }

    private static func outputs(among rows: [Row], of plan: StepPlan) -> [Output] {
        var targets: [Int: [Int: Int32]] = [:]
        return rows.enumerated().compactMap { index, row in
            let chunk = plan.chunks[row.chunk]
            if targets[row.chunk] == nil {
                targets[row.chunk] = Dictionary(uniqueKeysWithValues: chunk.score.map { ($0.row, $0.target) })
            }
            let target = targets[row.chunk]![row.offset]
            guard target != nil || chunk.sampledRows.contains(row.offset) else { return nil }
            return Output(row: index, chunk: row.chunk, offset: row.offset, target: target)
        }
    }
}
