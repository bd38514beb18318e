package import Tensors

/// One rank's context: its part of everything shared, the groups it belongs to, its kernels and its scratch.
///
/// A model receives a seat and never asks for the number of ranks: it asks for its part of the heads and crosses edges.
/// On one rank every part is the whole and every edge the identity. Only one thread may use it.
package final class Seat {
    package let configuration: ParallelConfiguration
    /// These are this rank's number in the whole job, and its number within its stage.
    package let rank: Int
    package let stageRank: Int
    package let kernels: Kernels
    package let scratch: Scratch
    package let meter = Meter()
    private let kernelCounter = KernelCounter()
    private let progress: RankProgress
    /// Where other threads can read of which layers the keys are stored; `nil` where nobody wants to know.
    private let watermark: KeyWatermark?
    package var work = Work()
    /// The number of keys that rows attend to here, in cases where only kernels know the number.
    private let keysFound: ComputedIndices
    private let stage: Int
    /// The groups of this rank, indexed by the raw value of the axes.
    private let groups: [AxisGroup?]
    /// Lists, for each set of axes that rows may be split over and each rank of the stage, the ranks whose rows it
    /// holds.
    private let rowHolders: [[[Int]]]
    /// The number of rows that each rank of the stage owns in this step.
    private var ownRows: [Int]

    /// The group of ranks that differ along some axes.
    struct AxisGroup {
        /// `nil` if this rank is the only member.
        let group: (any ProcessGroup)?
        /// The members' ranks within the stage, in the group's order.
        let members: [Int]
        let place: Int
    }

    /// The sets of axes along which ranks communicate or divide work.
    private static let axes: [Axes] = [
        .tensor, .dense, [.context, .tensor], .stage, .expert, .expertTensor, .kvSharding, .pipeline,
    ]

    /// Creates the seat of a single rank.
    package convenience init(kernels: Kernels = .best) {
        self.init(ParallelConfiguration(), rank: 0, world: ThreadWorld(threads: 1), kernels: kernels)
    }

    /// Creates the seat of a rank among others. Only the rank's own thread may call and use it.
    ///
    /// - Parameters:
    ///   - progress: where other threads can read what this rank is doing.
    ///   - watermark: where other threads can read of which layers this rank has stored the keys.
    ///   - scratch: this rank's own scratch.
    package init(
        _ configuration: ParallelConfiguration, rank: Int, world: any RankWorld, kernels: Kernels,
        progress: RankProgress = RankProgress(), watermark: KeyWatermark? = nil, scratch: Scratch = Scratch()
    ) {
        self.configuration = configuration
        self.progress = progress
        self.watermark = watermark
        self.rank = rank
        self.kernels = kernels.counted(by: kernelCounter)
        self.scratch = scratch
        keysFound = self.kernels.zeros(2, scratch)
        let mesh = configuration.mesh
        stage = mesh.coordinate(of: rank, on: .pipeline)
        let first = stage * configuration.stageRanks
        stageRank = rank - first
        var groups = [AxisGroup?](repeating: nil, count: 1 << Axis.allCases.count)
        for axes in Self.axes {
            let ranks = configuration.ranks(around: rank, along: axes)
            let isAlone = ranks.count == 1 || axes == .expert
            groups[axes.rawValue] = AxisGroup(
                group: isAlone ? nil : world.group(of: rank, among: ranks, purpose: axes.rawValue),
                members: ranks.map { $0 - first }, place: ranks.firstIndex(of: rank)!)
        }
        self.groups = groups
        rowHolders = (0..<groups.count).map { raw in
            guard Axes(rawValue: raw).isSubset(of: .stage) else { return [] }
            let together = Axes.stage.subtracting(Axes(rawValue: raw))
            return (0..<configuration.stageRanks).map { mesh.group(of: $0, along: together) }
        }
        ownRows = Array(repeating: 0, count: configuration.stageRanks)
    }

    /// The number of kernel calls of this rank so far.
    package var kernelCalls: Int { kernelCounter.calls }

    /// The count that `Kernels.shardedKeys` adds to.
    package var foundKeys: ComputedIndices { keysFound }

    /// Returns this rank's work so far. It waits until pending kernels are done, so it is meant for the end of a step.
    package func finishedWork() -> Work {
        let found = kernels.synchronize(keysFound)
        var work = work
        work.attended += Int(UInt32(bitPattern: found[0])) | Int(found[1]) << 32
        return work
    }

    /// Sets the number of rows that each rank of the stage owns in the step that begins.
    package func begin(rows: [Int]) {
        precondition(rows.count == configuration.stageRanks, "rows of \(configuration.stageRanks) ranks")
        ownRows = rows
    }

    /// Records that the step's entries of one layer, and of all earlier ones of this rank, are final in this process: every
    /// publication of the layer's keys is finished, and nothing in the step writes them again. They may be sent to another
    /// server from now on. A device's kernels must have written them by then.
    package func keysAreStored(ofLayer layer: Int) { watermark?.pass(layer: layer) }

    /// Runs a part of a step under a name, which appears in traces and in the report of a rank that fails there.
    package func span(
        _ name: StaticString, _ number: Int, _ body: () throws(GroupFailure) -> Void
    ) throws(GroupFailure) {
        let (outer, began) = (progress.enter(name, number), Meter.now())
        try body()
        progress.leave(for: outer)
        meter.tracer?(TraceSpan(name, number: number, begin: began, end: Meter.now()))
    }

    /// Runs an operation that may have to wait for other ranks.
    func wait(
        in name: StaticString, _ body: () throws(GroupFailure) -> Void
    ) throws(GroupFailure) {
        progress.beginWait(in: name)
        try body()
        progress.endWait()
    }

    func axisGroup(_ axes: Axes) -> AxisGroup {
        guard let axisGroup = groups[axes.rawValue] else { preconditionFailure("ranks never meet along \(axes)") }
        return axisGroup
    }

    // MARK: - This rank's part

    /// Returns this rank's part of `count` items that are divided along some axes in consecutive runs, as even as
    /// possible.
    package func part(of count: Int, along axes: Axes) -> Range<Int> {
        part(of: count, along: axes, at: axisGroup(axes).place)
    }

    /// Returns the part of the rank at another place.
    package func part(of count: Int, along axes: Axes, at place: Int) -> Range<Int> {
        Range(part: place, of: degree(axes), among: count)
    }

    /// Returns the number of K-slices of a sum over `width` columns that this rank adds locally; they form a subtree.
    package func slices(of width: Int, along axes: Axes) -> Int {
        let (all, ranks) = (Kernels.slices(of: width), degree(axes))
        return all % ranks == 0 ? all / ranks : Kernels.slices(of: width / ranks)
    }

    /// The share of positions whose keys this rank owns.
    package var owned: ShardPositions { configuration.kvSharding.positions(of: place(along: .kvSharding)) }

    /// Return this rank's index along some axes, and the number of ranks along them.
    package func place(along axes: Axes) -> Int { axisGroup(axes).place }
    package func degree(_ axes: Axes) -> Int { axisGroup(axes).members.count }

    /// Returns the members of the group along some axes, by their ranks within the stage.
    package func members(along axes: Axes) -> [Int] { axisGroup(axes).members }

    /// Returns the number of rows that a rank of the stage owns in this step.
    package func ownRows(of stageRank: Int) -> Int { ownRows[stageRank] }

    // MARK: - Edges

    /// A value that is being moved over an edge.
    package struct PendingCollective {
        let name: StaticString
        /// The group that carries out the collective; `nil` if the edge moves no rows.
        let group: (any ProcessGroup)?
        let arriving: View
        /// The rows of the sum, once its addends have arrived.
        var sum: View?
        /// The number of rows from each member; in an exchange it is known only after `finish`.
        package let counts: Indices
        /// The largest number of rows from each member of an exchange; `expectsAll` makes it the exact number.
        var expected: Indices?
        var expectsAll = true
        var axes: Axes = []
        let bytesPerRow: Int
        /// The number of nanoseconds spent so far.
        let spent: UInt64
    }

    /// Moves a value from the layout that its producer leaves to the one that its consumer needs. The result is
    /// scratch, or the value itself if nothing has to move.
    package func cross(_ edge: Edge, _ value: View) throws(GroupFailure) -> View {
        try finish(try start(edge, value))
    }

    /// Begins to cross an edge. A rank may compute what does not need the value before it calls `finish`.
    package func start(_ edge: Edge, _ value: View) throws(GroupFailure) -> PendingCollective {
        let axisGroup = axisGroup(edge.axes)
        let counts = rows(edge.from, of: axisGroup.members)
        guard let group = axisGroup.group else { return completed(value, counts) }
        let began = Meter.now()
        switch edge.move {
        case .nothing: preconditionFailure("\(edge.name) has nothing to move")
        case .allGather:
            precondition(value.rows == rows(edge.from, of: stageRank), "\(edge.name): \(value.rows) rows")
            let whole = scratch.rows(rows(edge.to, of: stageRank), value.columns)
            try group.start(.allGather(part: value, counts: counts, whole: whole))
            return PendingCollective(
                name: edge.name, group: group, arriving: whole, counts: counts, bytesPerRow: value.rowBytes,
                spent: Meter.now() - began)
        case .reduceScatter:
            precondition(value.rows == rows(edge.from, of: stageRank), "\(edge.name): \(value.rows) rows")
            let own = rows(edge.to, of: stageRank)
            let (addends, received) = (scratch.rows(group.size * own, value.columns), scratch.indices(group.size))
            let expected = scratch.indices(group.size)
            expected.fill(Int32(own))
            let sum = scratch.rows(own, value.columns)
            try group.start(
                .allToAll(
                    parts: value, counts: rows(edge.to, of: axisGroup.members), received: addends,
                    receivedCounts: received))
            return PendingCollective(
                name: edge.name, group: group, arriving: addends, sum: sum, counts: received, expected: expected,
                axes: edge.axes, bytesPerRow: value.rowBytes, spent: Meter.now() - began)
        }
    }

    /// Waits for the result: the crossed value or, in an exchange, the received rows, member by member.
    package func finish(_ pending: PendingCollective) throws(GroupFailure) -> View {
        guard let group = pending.group else { return pending.arriving }
        let began = Meter.now()
        try wait(in: pending.name) { () throws(GroupFailure) in try group.finish() }
        try checkCounts(of: pending)
        if let sum = pending.sum { add(pending.arriving, group.size, into: sum) }
        let count = pending.counts.sum
        meter.add(
            pending.name, bytes: (count - Int(pending.counts[group.place])) * pending.bytesPerRow, since: began,
            before: pending.spent)
        // An exchange has space for more rows than arrive, and rows that are shared arrive elsewhere.
        return pending.sum ?? pending.arriving.rows(0..<min(count, pending.arriving.rows))
    }

    /// Checks the counts of received rows, because members may be in other processes and later code relies on the
    /// counts.
    private func checkCounts(of pending: PendingCollective) throws(GroupFailure) {
        guard let expected = pending.expected else { return }
        for place in 0..<expected.count {
            let (count, wanted) = (pending.counts[place], expected[place])
            if count == wanted || !pending.expectsAll && (0...wanted).contains(count) { continue }
            throw failure(
                of: place, along: pending.axes,
                "it sent \(count) rows of '\(pending.name)' where \(wanted)"
                    + (pending.expectsAll ? " were expected" : " are the most"))
        }
    }

    /// Returns the error for a member of a group that sent something invalid.
    package func failure(of place: Int, along axes: Axes, _ reason: String) -> GroupFailure {
        GroupFailure(rank: rank - stageRank + members(along: axes)[place], reason: reason)
    }

    func completed(_ value: View, _ counts: Indices) -> PendingCollective {
        PendingCollective(name: "", group: nil, arriving: value, counts: counts, bytesPerRow: 0, spent: 0)
    }

    /// Returns the numbers of rows that some ranks of this stage hold of a value in some layout.
    private func rows(_ layout: Layout, of members: [Int]) -> Indices {
        let counts = scratch.indices(members.count)
        for (place, member) in members.enumerated() { counts[place] = Int32(rows(layout, of: member)) }
        return counts
    }

    /// Returns the number of rows that a rank of this stage holds of a value in some layout.
    private func rows(_ layout: Layout, of stageRank: Int) -> Int {
        rowHolders[configuration.onMesh(layout.rows).rawValue][stageRank].reduce(0) { $0 + ownRows[$1] }
    }

    /// Adds `count` consecutive blocks of rows as a balanced binary tree.
    package func add(_ blocks: View, _ count: Int, into sum: View) {
        if count == 1 { return kernels.copyRows(blocks, into: sum) }
        let mark = scratch.mark()
        defer { scratch.reset(to: mark) }
        let half = count / 2
        let right = scratch.rows(sum.rows, sum.columns)
        add(blocks.rows(0..<sum.rows * half), half, into: sum)
        add(blocks.rows(sum.rows * half..<blocks.rows), count - half, into: right)
        kernels.add(sum, right, into: sum)
    }

    // MARK: - Stages

    /// Returns the layers that this rank's stage computes.
    package func layers(of total: Int) -> Range<Int> { configuration.layers(ofStage: stage, total: total) }

    /// Fills the stream with this rank's rows from the previous stage; in the first stage it calls `first` instead.
    package func enter(_ stream: View, first: () -> Void) throws(GroupFailure) {
        if stage == 0 { return first() }
        let began = Meter.now()
        let group = axisGroup(.pipeline).group!
        try wait(in: "stage") { () throws(GroupFailure) in try group.receive(into: stream) }
        meter.add("stage", bytes: stream.rows * stream.rowBytes, since: began)
    }

    /// Sends this rank's rows to the next stage.
    ///
    /// - Returns: false in the last stage, which sends nothing.
    package func leave(_ stream: View) throws(GroupFailure) -> Bool {
        if isLastStage { return false }
        let group = axisGroup(.pipeline).group!
        try wait(in: "stage") { () throws(GroupFailure) in try group.send(stream) }
        return true
    }

    /// The rank of the whole job that sends rows to this one; `nil` in the first stage.
    package var previousStageRank: Int? { stage == 0 ? nil : rank - configuration.stageRanks }

    /// True if this rank computes the last layer.
    package var isLastStage: Bool { stage == configuration.pipeline - 1 }
}
