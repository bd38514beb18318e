import Inference
import KVCache
import Parallelism
import Tensors

/// The window entries that each rank has, where every rank of a data group is in a process of its own. An entry is a hash
/// of all tokens up to its position, so a row that sees an entry which its rank lacks, or another's, is found.
struct DividedWindows {
    private let division: SchedulerConfiguration.DividedGroups
    private let format: CacheFormat
    /// The entries of each reach, by rank of the stage and slot.
    private var memories: [[[Int32]]]

    /// Creates the ranks of a configuration; `nil` if every rank can read all window entries.
    init?(_ configuration: SchedulerConfiguration) {
        guard let division = configuration.dividedGroups, configuration.window > 0 else { return nil }
        self.division = division
        let (unit, window) = (division.alignment, configuration.window)
        let lanes = [KeySet.Lane(.f32, width: 1)]
        var sets = [
            KeySet("window", lanes, lifetime: .window(tokens: window)), KeySet("entries", lanes, tokensPerEntry: unit),
        ]
        // Entries of `unit` tokens are computed from inputs that overlap where the window is long enough.
        if unit <= window {
            let tokens = 2 * unit <= window ? 2 * unit : unit
            sets.append(KeySet("inputs", lanes, lifetime: .window(tokens: tokens), readEvery: unit))
        }
        format = CacheFormat(layers: [sets], pageSize: configuration.pageSize)
        let slots = [Int32](repeating: -1, count: configuration.windowPages * configuration.pageSize)
        memories = format.reaches.map { _ in Array(repeating: slots, count: division.parallel.stageRanks) }
    }

    /// Writes an entry that another server or a store has, for every rank of a data group.
    mutating func restore(_ hash: Int32, in slot: Int, ofGroup group: Int) {
        let size = division.parallel.context * division.parallel.tensor
        for reach in memories.indices {
            for rank in group * size..<(group + 1) * size { memories[reach][rank][slot] = hash }
        }
    }

    /// Lets the ranks write the entries of their rows and exchange those that others read.
    ///
    /// - Parameter hashes: the hashes of the tokens up to each position, for each chunk of the plan.
    /// - Returns: a text for each row that sees an entry which its rank does not have.
    mutating func run(_ plan: StepPlan, _ hashes: [[Int32]]) -> [String] {
        func slot(_ position: Int, _ chunk: Int) -> Int {
            let chunk = plan.chunks[chunk]
            return Int(chunk.windowPages[position / format.pageSize - chunk.firstWindowPage]) * format.pageSize
                + position % format.pageSize
        }
        let assignment = RowAssignment(plan, division.parallel, alignment: division.alignment)
        let size = division.parallel.context * division.parallel.tensor
        var problems: [String] = []
        for (number, reach) in format.reaches.enumerated() {
            for (rank, rows) in assignment.rows.enumerated() {
                for row in rows {
                    let position = plan.chunks[row.chunk].start + row.offset
                    memories[number][rank][slot(position, row.chunk)] = hashes[row.chunk][position]
                }
            }
            // What is sent is read before anything is received.
            let before = memories[number]
            for receiver in before.indices {
                let group = receiver / size
                let exchange = assignment.windowExchange(ofGroup: group, reach, format)
                for (owner, runs) in exchange.sent(to: [receiver % size]).enumerated() {
                    for run in runs {
                        for position in run.positions {
                            let at = slot(position, run.chunk)
                            memories[number][receiver][at] = before[group * size + owner][at]
                        }
                    }
                }
            }
            for rank in before.indices {
                let first = rank - rank % division.parallel.tensor
                let readers = reach.readEvery == 1 ? first..<first + division.parallel.tensor : rank..<rank + 1
                for row in assignment.rows[readers].joined() {
                    let position = plan.chunks[row.chunk].start + row.offset
                    guard (position + 1) % reach.readEvery == 0 else { continue }
                    let absent = (max(0, position - reach.tokens + 1)...position).filter {
                        memories[number][rank][slot($0, row.chunk)] != hashes[row.chunk][$0]
                    }
                    if !absent.isEmpty { problems.append("rank \(rank), row \(position), \(reach): \(absent)") }
                }
            }
        }
        return problems
    }
}
