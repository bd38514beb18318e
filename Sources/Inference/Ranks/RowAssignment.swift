import Modeling
package import Parallelism

/// A step's rows, dealt to the ranks of a stage: who owns which row. Every row has exactly one owner.
///
/// A pure function of the plan and the configuration, so that ranks never have to tell each other who has what.
package struct RowAssignment: Sendable {
    package let plan: StepPlan
    /// For each rank of the stage its rows, in the order of the plan.
    package let rows: [[Row]]
    /// Chunks whose queries go to the keys; the others' keys are all read by the rows' owners.
    package let dcpRows: Set<Int>
    /// For each rank of the stage those of its rows whose logits are needed.
    package let outputs: [[Output]]
    /// Set where processes divide the keys: a chunk's queries travel, or its keys visit.
    let processSharding: ProcessKVSharding?
    let configuration: ParallelConfiguration

    /// A row of the plan.
    package struct Row: Sendable, Equatable {
        /// Index among the plan's chunks.
        package let chunk: Int
        /// Index among the chunk's tokens.
        package let offset: Int
    }

    /// A row whose logits are needed.
    package struct Output: Sendable, Equatable {
        /// Index among its owner's rows.
        package let row: Int
        package let chunk: Int
        /// Index among the chunk's tokens.
        package let offset: Int
        /// The token its logits score, if they do.
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
            let partition = TokenPartition(
                configuration.strategy,
                chunks.map { plan.chunks[$0].start..<plan.chunks[$0].start + plan.chunks[$0].tokens.count },
                ranks: configuration.context, unit: alignment)
            for own in partition.units {
                // Ranks that share heads own consecutive parts, so that gathering them restores the order.
                for place in 0..<configuration.tensor {
                    let part = own[Range(part: place, of: configuration.tensor, among: own.count)]
                    rows.append(part.joined().map { all[$0] })
                }
            }
        }
        self.init(plan, rows: rows, configuration, processSharding: processSharding)
    }

    /// - Parameter rows: for each rank of the stage its rows, none of another data group's chunks.
    init(
        _ plan: StepPlan, rows: [[Row]], _ configuration: ParallelConfiguration,
        processSharding: ProcessKVSharding? = nil
    ) {
        self.plan = plan
        self.rows = rows
        self.configuration = configuration
        let ranks = configuration.context * configuration.tensor
        dcpRows = (0..<configuration.data).reduce(into: []) { dcpRows, group in
            let chunks = plan.chunks.indices.filter { plan.chunks[$0].group == group }
            if let processSharding {
                return dcpRows.formUnion(Set(chunks).subtracting(processSharding.gatheredKeys(among: chunks, plan)))
            }
            dcpRows.formUnion(
                Self.dcpRows(
                    among: chunks, rows[group * ranks..<(group + 1) * ranks], plan, configuration.kvSharding))
        }
        self.processSharding = processSharding
        outputs = rows.map { Self.outputs(among: $0, of: plan) }
    }

    /// Whether the next-token block runs behind the layers.
    var drafts: Bool { plan.chunks.contains { $0.speculation != nil } }

    /// Pages of a data group's requests whose keys visit; some more than once.
    func gatheredPages(ofGroup group: Int) -> [GatheredKeys.Page] {
        guard let pageSize = processSharding?.pageSize else { return [] }
        return plan.chunks.enumerated().filter { $1.group == group && !dcpRows.contains($0) }.flatMap { _, chunk in
            chunk.pages.enumerated().map { index, page in
                GatheredKeys.Page(number: page, known: min(max(chunk.start - index * pageSize, 0), pageSize))
            }
        }
    }

    /// The cost rule where no key has to move. Where every rank reads all the keys of its own rows, a step takes as long
    /// as the rank that has most to read: good where rows are many, bad for a few rows of long contexts. Chunks with fewer
    /// rows than there are owners of keys then let their queries go to the keys, which shares each row's keys evenly and
    /// costs four exchanges a layer: worth it where it takes a fifth off the longest.
    private static func dcpRows(
        among chunks: [Int], _ rows: ArraySlice<[Row]>, _ plan: StepPlan, _ kvSharding: KVSharding
    ) -> [Int] {
        let few = chunks.filter { chunk in
            let tokens = plan.chunks[chunk].tokens.count
            return tokens < kvSharding.ranks && plan.chunks[chunk].start + tokens >= kvSharding.minKeys
        }
        if few.isEmpty { return [] }
        func keys(_ row: Row) -> Int { plan.chunks[row.chunk].start + row.offset + 1 }
        let localExperts = rows.map { $0.reduce(0) { $0 + keys($1) } }
        let shared = rows.map { $0.reduce(0) { few.contains($1.chunk) ? $0 : $0 + keys($1) } }
        let dcpRows = zip(localExperts, shared).reduce(0) { $0 + $1.0 - $1.1 }
        return Double(shared.max()!) + Double(dcpRows) / Double(rows.count) <= 0.8 * Double(localExperts.max()!)
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
