import Parallelism
import Tensors
import TestSupport
import Testing

/// Tests parts, edges and their costs, for random meshes and row counts.
@Suite(.timeLimit(.minutes(15))) struct `A seat` {
    /// Holds fixed seeds, and one that differs from run to run; a failure prints the seed.
    static let seeds = Array(1...40) + [UInt64.random(in: 0 ... .max)]

    /// Holds everything that a test on every rank of a mesh needs.
    struct Trial: Sendable {
        let seed: UInt64
        let configuration: ParallelConfiguration
        /// Holds the number of rows that each rank of the stage owns.
        let rows: [Int]
        let columns: Int

        /// Draws a mesh.
        ///
        /// - Parameter tensors: the degrees to choose from.
        init(_ seed: UInt64, tensors: [Int] = [1, 2, 3, 4]) {
            var draw = SplitMix64(seed: seed)
            let tensor = tensors[draw.below(tensors.count)]
            configuration = ParallelConfiguration(
                data: 1 + draw.below(3), context: 1 + draw.below(4), tensor: tensor,
                denseTensor: draw.below(2) == 0 ? 1 : tensor)
            let most = draw.below(3) == 0 ? 1 : 1 + draw.below(12)
            rows = (0..<configuration.stageRanks).map { _ in draw.below(4) == 0 ? 0 : draw.below(most + 1) }
            columns = 1 + draw.below(9)
            self.seed = seed
        }

        /// Runs a body on every rank of the mesh.
        func onEveryRank<Found: Sendable>(_ body: @escaping @Sendable (Seat) throws -> Found) throws -> [Found] {
            let world = ThreadWorld(threads: configuration.world)
            return try TestSupport.onEveryRank(of: configuration.world) { rank in
                let seat = Seat(configuration, rank: rank, world: world, kernels: .best)
                seat.begin(rows: rows)
                do {
                    return try body(seat)
                } catch {
                    world.alarm.raise(GroupFailure(rank: rank, reason: "\(error)"))
                    throw error
                }
            }
        }

        /// Returns the ranks whose rows a rank holds of a value that is split over some axes.
        func holders(_ axes: Axes, _ rank: Int) -> [Int] {
            configuration.mesh.group(of: rank, along: Axes.stage.subtracting(configuration.onMesh(axes)))
        }

        /// Returns a rank's rows of a value split over some axes: every element is a small integer that names its
        /// owner.
        func value(_ axes: Axes, _ rank: Int) -> [Float] {
            holders(axes, rank).flatMap { owner in
                (0..<rows[owner] * columns).map { Float((owner * 1009 + $0 * 31) % 4093) }
            }
        }

        func rowCount(_ axes: Axes, _ rank: Int) -> Int { holders(axes, rank).reduce(0) { $0 + rows[$1] } }
    }

    private static let perContext = Layout(rows: [.data, .context])
    static let gathers = [
        Edge("to context", from: Layout(rows: .stage), to: perContext),
        Edge("to data", from: Layout(rows: .stage), to: Layout(rows: .data)),
        Edge("to all", from: Layout(rows: .stage), to: Layout()),
        Edge("dense", from: Layout(rows: [.data, .context, .dense]), to: perContext),
    ]
    static let sums = [
        Edge("sum", from: Layout(rows: [.data, .context], owes: .tensor), to: Layout(rows: .stage)),
        Edge(
            "dense sum", from: Layout(rows: [.data, .context], owes: .dense),
            to: Layout(rows: [.data, .context, .dense])),
    ]

    private static func fill(_ elements: [Float], _ columns: Int, _ scratch: Scratch) -> View {
        let view = scratch.rows(elements.count / columns, columns)
        for (index, element) in elements.enumerated() { view[index / columns, index % columns] = element }
        return view
    }

    @Test(arguments: seeds) func `gathers the members' rows in their order`(seed: UInt64) throws {
        let trial = Trial(seed)
        for edge in Self.gathers {
            let found = try trial.onEveryRank { seat in
                let value = Self.fill(trial.value(edge.from.rows, seat.rank), trial.columns, seat.scratch)
                // The crossing takes two steps, with scratch taken in between.
                let pending = try seat.start(edge, value)
                seat.scratch.rows(3, trial.columns).fill(.nan)
                return try seat.finish(pending).elements
            }
            for (rank, elements) in found.enumerated() {
                let members = trial.configuration.ranks(around: rank, along: edge.axes)
                let wanted = members.flatMap { trial.value(edge.from.rows, $0) }
                #expect(elements == wanted, "\(edge.name), rank \(rank) of \(trial)")
                #expect(wanted.count == trial.columns * trial.rowCount(edge.to.rows, rank), "\(trial)")
            }
        }
    }

    /// Returns a rank's addend: its value, times a number of its own. Sums of these are exact.
    private static func addend(_ trial: Trial, _ edge: Edge, _ rank: Int) -> [Float] {
        trial.value(edge.from.rows, rank).map { $0 * Float(rank + 1) }
    }

    @Test(arguments: seeds) func `sums what the members owe and keeps its own rows`(seed: UInt64) throws {
        let trial = Trial(seed, tensors: [2, 3, 4, 5, 6, 7, 8])
        for edge in Self.sums {
            let found = try trial.onEveryRank { seat in
                try seat.cross(edge, Self.fill(Self.addend(trial, edge, seat.rank), trial.columns, seat.scratch))
                    .elements
            }
            for (rank, elements) in found.enumerated() {
                let members = trial.configuration.ranks(around: rank, along: edge.axes)
                let factor = members.reduce(0) { $0 + $1 + 1 }
                let wanted = trial.value(edge.to.rows, rank).map { $0 * Float(factor) }
                #expect(elements == wanted, "\(edge.name), rank \(rank) of \(trial)")
            }
        }
    }

    /// Returns values of very different magnitudes, so that every order of addition gives different bits.
    private static func rough(_ trial: Trial, _ rank: Int, _ index: Int) -> Float {
        var draw = SplitMix64(seed: trial.seed ^ UInt64(rank) << 32 ^ UInt64(index))
        return (Float(draw.below(2000)) - 1000.5) * Float(sign: .plus, exponent: draw.below(20) - 10, significand: 1)
    }

    @Test(arguments: seeds) func `adds as a balanced tree where degrees are powers of two`(seed: UInt64) throws {
        let trial = Trial(seed, tensors: [2, 4, 8])
        let edge = Self.sums[0]
        let found = try trial.onEveryRank { seat in
            let count = trial.rowCount(edge.from.rows, seat.rank) * trial.columns
            let addend = (0..<count).map { Self.rough(trial, seat.rank, $0) }
            return try seat.cross(edge, Self.fill(addend, trial.columns, seat.scratch)).elements
        }
        for (rank, elements) in found.enumerated() {
            let members = trial.configuration.ranks(around: rank, along: .tensor)
            let before = members.prefix { $0 != rank }.reduce(0) { $0 + trial.rows[$1] } * trial.columns
            for (index, element) in elements.enumerated() {
                var sums = members.map { Self.rough(trial, $0, before + index) }
                // Neighbours are added, then neighbouring pairs, …
                while sums.count > 1 {
                    sums = stride(from: 0, to: sums.count, by: 2).map { sums[$0] + sums[$0 + 1] }
                }
                #expect(element.bitPattern == sums[0].bitPattern, "rank \(rank) of \(trial)")
            }
        }
    }

    @Test func `leaves a value where it is along axes of degree 1`() throws {
        let seat = Seat()
        seat.begin(rows: [3])
        let value = seat.scratch.rows(3, 4)
        value.fill(1)
        for edge in Self.gathers + Self.sums {
            let crossed = try seat.cross(edge, value)
            crossed[0, 0] += 1
            #expect(value[0, 0] == crossed[0, 0], "\(edge.name): the same memory")
        }
        #expect(value[0, 0] == Float(1 + Self.gathers.count + Self.sums.count))
        #expect(seat.meter.collectives.isEmpty)
    }

    @Test(arguments: seeds) func `has parts that cover everything exactly once`(seed: UInt64) throws {
        let trial = Trial(seed, tensors: [1, 2, 3, 4, 8])
        var draw = SplitMix64(seed: seed)
        let axes: [Axes] = [.tensor, .dense, [.context, .tensor], .stage]
        for count in [0, 1, trial.configuration.stageRanks, draw.below(1000), 64 * draw.below(100)] {
            let parts = try trial.onEveryRank { seat in
                axes.map { (part: seat.part(of: count, along: $0), place: seat.place(along: $0)) }
            }
            for (number, axes) in axes.enumerated() {
                for rank in parts.indices {
                    let members = trial.configuration.ranks(around: rank, along: axes)
                    let ofMembers = members.map { parts[$0][number].part }
                    #expect(ofMembers.flatMap { Array($0) } == Array(0..<count), "\(axes) of \(trial)")
                    #expect(ofMembers.map(\.count).max()! - ofMembers.map(\.count).min()! <= 1, "\(trial)")
                    #expect(members.map { parts[$0][number].place } == Array(members.indices), "\(trial)")
                }
            }
        }
    }

    @Test(arguments: [1, 2, 4, 8], [8, 16, 64, 96, 1408])
    func `shares the slices of a sum evenly`(tensor: Int, width: Int) throws {
        let configuration = ParallelConfiguration(tensor: tensor)
        let seat = Seat(configuration, rank: 0, world: ThreadWorld(threads: tensor), kernels: .best)
        #expect(seat.slices(of: width, along: .tensor) * tensor == Kernels.slices(of: width))
        #expect(Kernels.slices(of: width) == 8)
    }

    @Test func `cuts a part that is no subtree into slices of its own`() {
        let seat = Seat(ParallelConfiguration(tensor: 3), rank: 0, world: ThreadWorld(threads: 3), kernels: .best)
        #expect(seat.slices(of: 96, along: .tensor) == 8)
        #expect(seat.slices(of: 6, along: .tensor) == 2)
    }
}

/// Compares the meter's numbers for edges and exchanges with arithmetic.
@Suite(.timeLimit(.minutes(15))) struct `A seat's meter` {
    typealias Trial = `A seat`.Trial

    private struct CollectiveStatistics: Sendable {
        let name: String
        let calls: Int
        let bytes: Int
    }

    private static func collectives(_ seat: Seat) -> [CollectiveStatistics] {
        seat.meter.collectives.map { CollectiveStatistics(name: "\($0.name)", calls: $0.calls, bytes: $0.bytes) }
    }

    @Test(arguments: `A seat`.seeds) func `counts the calls and the bytes of every edge`(seed: UInt64) throws {
        let trial = Trial(seed)
        let (edges, repeats) = (`A seat`.gathers + `A seat`.sums, 2)
        let found = try trial.onEveryRank { seat in
            for edge in edges + edges {
                let value = seat.scratch.rows(trial.rowCount(edge.from.rows, seat.rank), trial.columns)
                value.fill(1)
                _ = try seat.cross(edge, value)
            }
            return Self.collectives(seat)
        }
        for edge in edges {
            let degree = trial.configuration.degree(edge.axes)
            for (rank, collectives) in found.enumerated() {
                let (from, to) = (trial.rowCount(edge.from.rows, rank), trial.rowCount(edge.to.rows, rank))
                let arriving = edge.from.owes == nil ? to - from : (degree - 1) * to
                let collective = collectives.first { $0.name == "\(edge.name)" }
                #expect(collective?.calls == (degree == 1 ? nil : repeats), "\(edge.name), rank \(rank) of \(trial)")
                #expect(collective?.bytes ?? 0 == repeats * arriving * trial.columns * 4, "\(edge.name) of \(trial)")
            }
            // Over all ranks, every row of an all-gather is sent to all members but one, every row of an addend to one.
            let sum = found.joined().filter { $0.name == "\(edge.name)" }.reduce(0) { $0 + $1.bytes }
            let rows = trial.rows.indices.reduce(0) { rows, rank in
                let held = trial.rowCount(edge.from.rows, rank)
                return rows + (edge.from.owes == nil ? (degree - 1) * held : held - trial.rowCount(edge.to.rows, rank))
            }
            #expect(sum == repeats * rows * trial.columns * 4, "\(edge.name) of \(trial)")
        }
    }

    @Test(arguments: `A seat`.seeds.prefix(10))
    func `counts the bytes of exchanges, gathers and shared memory`(seed: UInt64) throws {
        let trial = Trial(seed)
        let ranks = trial.configuration.stageRanks
        var draw = SplitMix64(seed: seed)
        let matrix = (0..<ranks).map { _ in (0..<ranks).map { _ in draw.below(6) } }
        let keys = `A seat`.gathers[1]
        let found = try trial.onEveryRank { seat in
            let (scratch, own) = (seat.scratch, matrix[seat.rank])
            let counts = scratch.indices(ranks)
            counts.copy(own.map { Int32($0) })
            let parts = scratch.rows(own.reduce(0, +), 5)
            parts.fill(Float(seat.rank))
            let expected = scratch.indices(ranks)
            expected.copy(matrix.map { Int32($0[seat.rank]) })
            let pending = try seat.startExchange(
                "exchange", along: .stage, parts, counts: counts, expecting: expected)
            let rows = try seat.finish(pending)
            #expect(pending.counts.elements == matrix.map { Int32($0[seat.rank]) })
            #expect(rows.rows == matrix.reduce(0) { $0 + $1[seat.rank] })
            counts.copy(matrix.map { Int32($0[0]) })
            let part = scratch.rows(own[0], 7)
            part.fill(Float(seat.rank))
            let whole = try seat.gather("gathering", along: .stage, part, counts: counts)
            let senders = matrix.indices.flatMap { Array(repeating: Float($0), count: matrix[$0][0]) }
            #expect(whole.columns(0..<1).elements == senders)
            _ = try seat.finish(
                try seat.startSharing(keys, counts: trial.rows, bytesPerRow: 11) { (.none, { _ in false }) })
            return Self.collectives(seat)
        }
        for (rank, collectives) in found.enumerated() {
            var wanted: [String: Int] = [:]
            if ranks > 1 {
                wanted["exchange"] = 20 * (matrix.reduce(0) { $0 + $1[rank] } - matrix[rank][rank])
                wanted["gathering"] = 28 * (matrix.reduce(0) { $0 + $1[0] } - matrix[rank][0])
            }
            // Where no member has written a row, none waits for another.
            if trial.configuration.degree(keys.axes) > 1, trial.rowCount(.data, rank) > 0 {
                wanted["to data"] = 11 * (trial.rowCount(.data, rank) - trial.rows[rank])
            }
            #expect(Dictionary(uniqueKeysWithValues: collectives.map { ($0.name, $0.bytes) }) == wanted, "\(trial)")
            #expect(collectives.allSatisfy { $0.calls == 1 })
        }
    }
}
