import Parallelism
import TestSupport
import Testing

extension World: CustomTestStringConvertible {
    package var testDescription: String { name }
}

extension TransportLaws.Waiting: CustomTestStringConvertible {
    package var testDescription: String { rawValue }
}

/// Checks the laws of `TransportLaws` for every transport and way of waiting. `transport-laws` checks them over MPI.
@Suite(.timeLimit(.minutes(15))) struct `Every process group` {
    static let sizes = [1, 2, 3, 5, 8, 16, 32]
    /// Differs from run to run; a failure prints it.
    static let seed = UInt64.random(in: 0 ... .max)

    /// Gives larger groups fewer rounds, so that each takes about as long.
    static func rounds(_ most: Int, _ size: Int) -> Int { max(4, most / size) }

    private func check(_ world: World, _ size: Int, _ law: @escaping TransportLaws.Law) throws {
        let problems = try world.run(size, law)
        #expect(problems == [], "\(size) ranks, seed \(Self.seed)")
    }

    @Test(arguments: World.all, sizes) func `gathers uneven parts bit for bit`(world: World, size: Int) throws {
        try check(world, size, TransportLaws.allGather(Self.seed, rounds: Self.rounds(200, size)))
    }

    @Test(arguments: World.all, sizes) func `transposes a matrix of row blocks`(world: World, size: Int) throws {
        try check(world, size, TransportLaws.allToAll(Self.seed, rounds: Self.rounds(100, size)))
    }

    @Test(arguments: World.all, sizes)
    func `shares what was written with each process once`(world: World, size: Int) throws {
        let processes = min(world.processes, size)
        try check(
            world, size,
            TransportLaws.share(Self.seed, rounds: Self.rounds(100, size), copies: processes == 1 ? 0 : processes))
    }

    @Test(arguments: World.all, sizes)
    func `delivers rows to the processes that they are for`(world: World, size: Int) throws {
        try check(world, size, TransportLaws.deliver(Self.seed, rounds: Self.rounds(100, size)))
    }

    @Test(arguments: World.all, sizes)
    func `lets members work between start and finish, and arrive late`(world: World, size: Int) throws {
        try check(world, size, TransportLaws.workBetween(Self.seed, rounds: Self.rounds(150, size)))
    }

    @Test(arguments: World.all, sizes)
    func `keeps several groups of the same ranks apart, in any order`(world: World, size: Int) throws {
        try check(world, size, TransportLaws.severalGroups(Self.seed, rounds: Self.rounds(60, size)))
    }

    @Test(arguments: World.all, sizes) func `survives any sequence of operations`(world: World, size: Int) throws {
        try check(world, size, TransportLaws.anything(Self.seed, operations: Self.rounds(400, size)))
    }

    @Test(arguments: World.all, sizes)
    func `sends rows to the next member in order, several ahead`(world: World, size: Int) throws {
        try check(world, size, TransportLaws.stages(Self.seed, rounds: Self.rounds(200, size)))
    }

    @Test(arguments: World.all, TransportLaws.Waiting.allCases)
    func `ends waiting when a member fails`(world: World, waiting: TransportLaws.Waiting) throws {
        for size in Self.sizes where size > 1 { try check(world, size, TransportLaws.failure(while: waiting)) }
    }
}

/// Checks the laws that need shared memory.
@Suite(.timeLimit(.minutes(15))) struct `Process groups of one process` {
    @Test(arguments: World.inMemory, `Every process group`.sizes)
    func `order memory by barriers`(world: World, size: Int) throws {
        let law = TransportLaws.barrierOrdersMemory(SharedNumbers(size), rounds: max(20, 2000 / size))
        let problems = try world.run(size, law)
        #expect(problems == [])
    }

    @Test(arguments: World.inMemory, [2, 3, 8])
    func `block a sender that is too far ahead`(world: World, size: Int) throws {
        let problems = try world.run(size, TransportLaws.blocks(SentCounts(), sendBuffers: 200))
        #expect(problems == [])
    }
}
