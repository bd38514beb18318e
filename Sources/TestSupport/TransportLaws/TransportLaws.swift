package import Parallelism
package import Tensors

/// The laws of every transport, written once. Every member of a group of ranks runs a law, which returns the problems
/// it found.
///
/// Members do not tell each other what to do: everything follows from the seed.
package enum TransportLaws {
    package typealias Law = @Sendable (Member) throws -> [String]
}

/// One rank of a job as laws use it.
package struct Member {
    package let rank: Int
    /// The number of ranks in the job.
    package let size: Int
    /// Returns this rank's membership in a group of some ranks; groups of the same ranks differ by their purpose.
    package let group: (_ ranks: [Int], _ purpose: Int) -> any ProcessGroup
    /// Reports that this rank has failed.
    package let raise: (GroupFailure) -> Void
    package let scratch = Scratch(bytes: 1 << 30)

    package init(_ rank: Int, of size: Int, _ world: any RankWorld) {
        self.rank = rank
        self.size = size
        group = { world.group(of: rank, among: $0, purpose: $1) }
        raise = { world.alarm.raise($0) }
    }

    /// Returns this rank's membership in a group of all ranks.
    package func everybody(_ purpose: Int = 0) -> any ProcessGroup { group(Array(0..<size), purpose) }
}

extension TransportLaws {
    /// Returns the bits of a member's row at a column. One in eight is a value that arithmetic would change.
    package static func bits(_ rowSeed: UInt64, member: Int, row: Int, _ column: Int) -> UInt32 {
        var draw = SplitMix64(seed: rowSeed &+ UInt64(member) << 40 ^ UInt64(row) << 16 ^ UInt64(column))
        return draw.below(8) == 0 ? delicate[draw.below(delicate.count)] : UInt32(truncatingIfNeeded: draw.next())
    }

    /// The quiet and signalling NaNs with payloads, -0, infinities and denormals.
    private static let delicate: [UInt32] = [
        0x7FC0_1234, 0xFFC0_0001, 0x7F80_0001, 0xFFBF_FFFF, 0x8000_0000, 0x7F80_0000, 0xFF80_0000, 1, 0x8000_0001,
        0x007F_FFFF,
    ]

    /// Returns rows of a member in a view whose rows are not contiguous in memory.
    package static func rows(_ rowSeed: UInt64, _ member: Int, _ count: Int, _ columns: Int, in scratch: Scratch)
        -> View
    {
        let view = scratch.rows(count, columns + 3).columns(1..<columns + 1)
        for row in 0..<count {
            let integers = view.rows(row..<row + 1).integers
            for column in 0..<columns {
                integers[column] = Int32(bitPattern: bits(rowSeed, member: member, row: row, column))
            }
        }
        return view
    }

    /// Returns the first difference between `view` and the rows of a member from its row `first` on; `nil` if there is
    /// none.
    package static func difference(_ view: View, _ rowSeed: UInt64, _ member: Int, from first: Int = 0) -> String? {
        for row in 0..<view.rows {
            let integers = view.rows(row..<row + 1).integers
            for column in 0..<view.columns {
                let wanted = bits(rowSeed, member: member, row: first + row, column)
                let found = UInt32(bitPattern: integers[column])
                if found != wanted {
                    return "row \(first + row) of member \(member), column \(column): "
                        + "\(String(found, radix: 16)) is not \(String(wanted, radix: 16))"
                }
            }
        }
        return nil
    }

    /// Returns row counts that are uneven, often zero, and of different magnitudes in each call.
    package static func counts(_ count: Int, _ draw: inout SplitMix64) -> [Int] {
        let most = [0, 1, 3, 20, 300][draw.below(5)]
        return (0..<count).map { _ in draw.below(3) == 0 ? 0 : draw.below(most + 1) }
    }
}

extension TransportLaws {
    /// Runs a law on some ranks of a job, each on a thread of its own.
    ///
    /// - Returns: the problems, each with the rank that found it.
    package static func run(
        _ law: @escaping Law, on ranks: Range<Int>, of size: Int, _ world: any RankWorld
    ) throws -> [String] {
        try onEveryRank(of: ranks.count) { index in
            let rank = ranks.lowerBound + index
            do {
                return try law(Member(rank, of: size, world)).map { "rank \(rank): \($0)" }
            } catch {
                // Without an alarm the other ranks would wait for this one.
                world.alarm.raise(GroupFailure(rank: rank, reason: "\(error)"))
                throw error
            }
        }.flatMap { $0 }
    }
}
