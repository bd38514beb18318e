import Disaggregation
import KVCache
import Parallelism

/// A block placement tells which process of a server keeps which entries of a block. A store's files are to the server
/// what another server of one process would be, so that transfer plans say who has, and who gets, an entry.
struct BlockPlacement: Sendable {
    private let layout: BlockLayout
    private let processes: Int
    /// The plans by data group: from the server to files, and from files to the server.
    private let saving: [TransferPlan]
    private let restoring: [TransferPlan]

    /// - Parameter server: the placement of a server's keys, in the format of the layout.
    init(_ server: CachePlacement, _ layout: BlockLayout) {
        let files = CachePlacement(
            server.format, ParallelConfiguration(), processes: 1, layers: layout.layers.count, isSharded: false)
        self.layout = layout
        processes = server.processes
        let groups = 0..<server.parallel.data
        saving = groups.map { TransferPlan(from: server, group: $0, to: files, group: 0, layers: layout.layers) }
        restoring = groups.map { TransferPlan(from: files, group: 0, to: server, group: $0, layers: layout.layers) }
    }

    /// Returns what each process packs of a piece of a block: every entry is packed by one of those that keep it.
    ///
    /// - Parameters:
    ///   - piece: one of the layout's pieces.
    ///   - group: the data group whose ranks have the keys.
    func saved(_ piece: Range<Int>, ofBlock block: Int, group: Int) -> [ProcessEntries] {
        entries(piece, ofBlock: block, from: 0) { saving[group].entries(of: $1, $2, from: $0, to: 0) }
    }

    /// Returns what each process is given of a piece of a block: the entries that it keeps.
    ///
    /// - Parameters:
    ///   - first: the position before which the server has all entries.
    ///   - group: the data group whose ranks get the keys.
    func restored(_ piece: Range<Int>, ofBlock block: Int, from first: Int, group: Int) -> [ProcessEntries] {
        entries(piece, ofBlock: block, from: first) { restoring[group].entries(of: $1, $2, from: 0, to: $0) }
    }

    /// - Parameter kept: returns those entries of a set, among those at some positions, that concern a process.
    private func entries(
        _ piece: Range<Int>, ofBlock block: Int, from first: Int, _ kept: (Int, KeySetID, Range<Int>) -> [Int]
    ) -> [ProcessEntries] {
        (0..<processes).compactMap { process in
            let parts = layout.parts[piece].compactMap { part -> (BlockLayout.Part, [Range<Int>])? in
                let (numbers, tokens) = (
                    layout.numbers(of: part, ofBlock: block), layout.format[part.set].tokensPerEntry
                )
                let end = numbers.upperBound * tokens
                let runs = Self.runs(kept(process, part.set, min(max(numbers.lowerBound * tokens, first), end)..<end))
                return runs.isEmpty ? nil : (part, runs)
            }
            return parts.isEmpty ? nil : ProcessEntries(process: process, block: block, parts: parts)
        }
    }

    private static func runs(_ numbers: [Int]) -> [Range<Int>] {
        var runs: [Range<Int>] = []
        for number in numbers {
            if let last = runs.last, last.upperBound == number {
                runs[runs.count - 1] = last.lowerBound..<number + 1
            } else {
                runs.append(number..<number + 1)
            }
        }
        return runs
    }
}

/// Those entries of a piece of a block that one process packs or is given.
struct ProcessEntries: Sendable {
    let process: Int
    /// The index of the block in its prefix.
    let block: Int
    /// The entries of each set, as runs of consecutive ones, ascending.
    let parts: [(part: BlockLayout.Part, runs: [Range<Int>])]

    /// Returns the entries as a cache takes them, in the pages that have them.
    func named(in pages: CacheStore.PageList) -> [CacheEntries] {
        parts.map { CacheEntries($0.runs.flatMap { Array($0) }, of: $0.part.set, in: pages) }
    }

    /// Returns the number of their bytes.
    func bytes(_ format: CacheFormat) -> Int {
        parts.reduce(0) { bytes, part in
            bytes + part.runs.reduce(0) { $0 + $1.count } * format[part.part.set].bytesPerEntry
        }
    }
}
