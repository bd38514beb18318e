import Foundation
import Modeling
import Tensors

/// A tuning bench finds the fastest block sizes for a model's operations on this processor.
package struct TuningBench {
    /// A finding is the result for one setting.
    struct Finding {
        let setting: String
        /// The chosen value; `nil` keeps the usual one.
        let chosen: Int?
        /// The measurements in words.
        let detail: String
    }

    private let shapes: KernelShapes
    private let bed: KernelBed
    private let rounds: Int

    /// - Throws: `MemoryError` where the system does not reserve the memory of the measurements.
    init(_ shapes: KernelShapes, _ kernels: Kernels, rounds: Int) throws {
        self.shapes = shapes
        self.rounds = rounds
        let scratch = try Scratch.forBenchmark()
        bed = KernelBed(kernels: kernels, cold: ColdMemory(bytes: 512 << 20), scratch: scratch)
    }

    /// Measures every setting that the model uses.
    func run(progress: (Double) -> Void) -> [Finding] {
        let searches: [() -> Finding?] =
            DType.allCases.map { type in { gemvMaxRows(type) } }
            + [DType.f32, .bf16, .fp8].map { type in { directKeyMaxHeads(type) } } + [indexKeyTiles, indexRowTile]
        return searches.enumerated().compactMap { index, search in
            defer { progress(Double(index + 1) / Double(searches.count)) }
            return search()
        }
    }

    /// Returns the tuning that the findings make.
    static func tuning(_ findings: [Finding]) -> Tuning {
        findings.reduce(into: Tuning()) { tuning, found in
            let setting = Tuning.settings.first { $0.name == found.setting }!
            if let chosen = found.chosen { tuning[keyPath: setting.path] = chosen }
        }
    }

    private func kernels(_ change: (inout Tuning) -> Void) -> Kernels {
        var tuning = Tuning()
        change(&tuning)
        return bed.kernels.tuned(tuning)
    }

    /// Returns the largest of ascending sizes up to which the first of three ways is as fast as the second, provided
    /// that switching there is faster than the third, the usual way, at some size and slower at none.
    ///
    /// - Parameter race: Returns the seconds of the three ways at a size.
    package static func boundary(_ sizes: [Int], _ race: (Int) -> [Double]) -> (size: Int?, detail: String) {
        var (last, isOver): (Int?, Bool) = (nil, false)
        var measured: [(size: Int, seconds: [Double])] = []
        for size in sizes {
            let seconds = race(size)
            measured.append((size, seconds))
            if !isOver, seconds[0] <= seconds[1] { last = size }
            if seconds[0] > seconds[1] * (1 + Race.margin) { isOver = true }
        }
        let gains = measured.map { size, seconds in seconds[2] / (size <= last ?? 0 ? seconds[0] : seconds[1]) }
        let pays = gains.max()! >= 1 + Race.margin && gains.min()! >= 1 - Race.margin
        let ratios = measured.map { "\($0.size): \(String(format: "%.2f", $0.seconds[1] / $0.seconds[0]))" }
        return (pays ? last ?? 1 : nil, ratios.joined(separator: ", "))
    }

    // MARK: - What is measured

    /// Finds the number of rows up to which reading weights as they are stored is faster than widening a panel of them,
    /// over all the model's products.
    private func gemvMaxRows(_ type: DType) -> Finding {
        let found = Self.boundary([2, 4, 6, 8, 10, 12, 16, 20, 24, 32]) { rows in
            let ways = [rows, 1, 0].map { few in
                let kernels = kernels { $0.gemvMaxRows[type] = few }
                return shapes.products.map { product in
                    // Part of a wide product suffices: its other outputs take as long.
                    let outputs = min(product.outputs, max((16 << 20) / product.inputs, 1))
                    let x = bed.activations(rows, product.inputs)
                    let out = bed.scratch.rows(rows, outputs)
                    return {
                        kernels.matmul(x, bed.cold.weight(type, outputs, product.inputs), into: out, bed.scratch)
                    }
                }
            }
            return Race(rounds: rounds, ways.map { products in { for product in products { product() } } }).seconds
        }
        return Finding(
            setting: "gemv_max_rows_\(type)", chosen: found.size, detail: "against panels, by rows: \(found.detail)")
    }

    /// Finds the number of heads up to which widening keys in each head is faster than widening them once for all
    /// heads.
    private func directKeyMaxHeads(_ type: DType) -> Finding {
        let (heads, positions) = (shapes.attention.heads, 32 * 1024)
        let keys = min(shapes.selection?.topK ?? 2048, positions)
        let sizes = [2, 4, 8, 12, 16, 24, 32, 48, 64, 128].filter { $0 < heads } + [heads]
        let found = Self.boundary(sizes) { heads in
            let ways = [heads, 1, 0].map { most in
                shapes.attention(
                    heads: heads, rows: 8, to: keys, of: positions, type, kernels { $0.directKeyMaxHeads[type] = most },
                    bed)
            }
            return Race(rounds: rounds, ways).seconds
        }
        return Finding(
            setting: "direct_key_max_heads_\(type)", chosen: found.size,
            detail: "against widened keys, by heads: \(found.detail)")
    }

    private func indexKeyTiles() -> Finding? {
        guard let indexer = shapes.selection else { return nil }
        let sizes = [8, 1, 2, 4]
        let ways = sizes.map { panels in
            shapes.indexScores(indexer, rows: 8, of: 16_384, .f32, kernels { $0.indexKeyTiles = panels }, bed)
        }
        return fastest("index_key_tiles", of: sizes, Race(rounds: rounds, ways).seconds)
    }

    private func indexRowTile() -> Finding? {
        guard let indexer = shapes.selection else { return nil }
        let sizes = [64, 16, 32, 128]
        let ways = sizes.map { shapes.indexScores(indexer, rows: $0, of: 16_384, .f32, bed.kernels, bed) }
        let each = zip(Race(rounds: rounds, ways).seconds, sizes).map { $0 / Double($1) }
        return fastest("index_row_tile", of: sizes, each)
    }

    /// Returns the fastest size; the first one is the usual one.
    private func fastest(_ setting: String, of sizes: [Int], _ seconds: [Double]) -> Finding {
        let fastest = seconds.indices.min { seconds[$0] < seconds[$1] }!
        let ratios = zip(sizes, seconds).map { "\($0): \(String(format: "%.2f", seconds[0] / $1))" }
        return Finding(
            setting: setting, chosen: seconds[fastest] < seconds[0] * (1 - Race.margin) ? sizes[fastest] : nil,
            detail: "against \(sizes[0]): " + ratios.joined(separator: ", "))
    }
}
