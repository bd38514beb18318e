import Parallelism
import Tensors
import TestSupport
import Testing

/// What every transport owes its users, written once. A law is run by every member of a group of ranks and returns what
/// it found wrong.
///
/// Members agree on what they do without telling each other: all of it follows from the seed.
enum TransportLaws {
    typealias Law = @Sendable (Member) throws -> [String]
}

/// One rank of a job, as a law sees it.
struct Member {
    let rank: Int
    /// Ranks of the job.
    let size: Int
    /// This rank's membership among some ranks for some purpose.
    let group: (_ ranks: [Int], _ purpose: Int) -> any ProcessGroup
    /// Says that this rank has failed.
    let raise: (GroupFailure) -> Void
    let scratch = Scratch(bytes: 1 << 30)

    /// The group of all ranks.
    func everybody(_ purpose: Int = 0) -> any ProcessGroup { group(Array(0..<size), purpose) }
}

/// A way to run a body on every rank of a job. One for each transport, and for each way in which it waits.
struct World: Sendable, CustomTestStringConvertible {
    let testDescription: String
    /// Runs a law on every one of so many ranks, with a new transport, and returns what they found, each problem with the
    /// rank it was found on.
    let run: @Sendable (_ ranks: Int, _ law: @escaping TransportLaws.Law) throws -> [String]

    init(_ name: String, run: @escaping @Sendable (Int, @escaping TransportLaws.Law) throws -> [String]) {
        testDescription = name
        self.run = run
    }

    /// Threads of this process.
    ///
    /// - Parameter cores: as many as the transport is told there are.
    static func threads(_ name: String, cores: Int) -> World {
        World(name) { ranks, law in
            let world = ThreadWorld(ranks: ranks, cores: cores)
            return try onEveryRank(of: ranks) { rank in
                let member = Member(
                    rank: rank, size: ranks,
                    group: { world.group(of: rank, among: $0, purpose: $1) }, raise: { world.alarm.raise($0) })
                do {
                    return try law(member).map { "rank \(rank): \($0)" }
                } catch {
                    // Or the others would wait for this one.
                    world.alarm.raise(GroupFailure(rank: rank, reason: "\(error)"))
                    throw error
                }
            }.flatMap { $0 }
        }
    }

    static let all = [threads("threads that spin", cores: 64), threads("threads that sleep", cores: 0)]
}

extension TransportLaws {
    /// The bits that a member's row has at a column in some exchange. One in eight is a value that only a copy of the bits
    /// leaves alone.
    static func bits(_ exchange: UInt64, member: Int, row: Int, _ column: Int) -> UInt32 {
        var draw = SplitMix64(seed: exchange &+ UInt64(member) << 40 ^ UInt64(row) << 16 ^ UInt64(column))
        return draw.below(8) == 0 ? delicate[draw.below(delicate.count)] : UInt32(truncatingIfNeeded: draw.next())
    }

    /// Quiet and signalling NaNs with payloads, -0, the infinities, denormals.
    private static let delicate: [UInt32] = [
        0x7FC0_1234, 0xFFC0_0001, 0x7F80_0001, 0xFFBF_FFFF, 0x8000_0000, 0x7F80_0000, 0xFF80_0000, 1, 0x8000_0001,
        0x007F_FFFF,
    ]

    /// Rows of a member, from `first` on, in a view whose rows do not lie close together.
    static func rows(_ exchange: UInt64, _ member: Int, _ count: Int, _ columns: Int, in scratch: Scratch) -> View {
        let view = scratch.rows(count, columns + 3).columns(1..<columns + 1)
        for row in 0..<count {
            let integers = view.rows(row..<row + 1).integers
            for column in 0..<columns {
                integers[column] = Int32(bitPattern: bits(exchange, member: member, row: row, column))
            }
        }
        return view
    }

    /// The first place where rows are not those of a member, from its row `first` on.
    static func difference(_ view: View, _ exchange: UInt64, _ member: Int, from first: Int = 0) -> String? {
        for row in 0..<view.rows {
            let integers = view.rows(row..<row + 1).integers
            for column in 0..<view.columns {
                let wanted = bits(exchange, member: member, row: first + row, column)
                let found = UInt32(bitPattern: integers[column])
                if found != wanted {
                    return "row \(first + row) of member \(member), column \(column): "
                        + "\(String(found, radix: 16)) is not \(String(wanted, radix: 16))"
                }
            }
        }
        return nil
    }

    /// Row counts that are uneven, often zero, and of very different magnitudes from call to call.
    static func counts(_ count: Int, _ draw: inout SplitMix64) -> [Int] {
        let most = [0, 1, 3, 20, 300][draw.below(5)]
        return (0..<count).map { _ in draw.below(3) == 0 ? 0 : draw.below(most + 1) }
    }
}
