/// Holds block sizes and limits that are chosen for a processor. They only affect speed: no result depends on them.
package struct Tuning: Sendable, Equatable {
    /// A team does not share an operation with less work than this, because one thread finishes it before others have
    /// begun. The unit is an element moved; sixteen multiply-adds in registers take about as long.
    package var minParallelWork = 1 << 13
    /// This many times a team's helper looks for the next operation, and the leader for the last part of one, before it
    /// sleeps. That should be longer than the time between two operations of a layer. No thread spins if threads
    /// outnumber cores.
    package var spins = 4000
    /// A matrix product of at most this many rows reads weights as stored, without a panel.
    package var gemvMaxRows = PerType()
    /// Attention of at most this many heads reads keys as stored, without widening them first. No cache has INT8 or FP4 keys.
    package var directKeyMaxHeads = PerType()
    /// In index scores, a tile of queries runs over at most this many panels of sixteen or thirty-two keys. 0 selects
    /// the default of the instruction-set level.
    package var indexKeyTiles = 0
    /// Index scores, and attention at the owners of the keys, are computed for this many rows of a request together, so
    /// that keys are read once for all of them.
    package var indexRowTile = 64

    package init() {}

    /// Holds a number for each element type; 0 selects the default of the instruction-set level.
    package struct PerType: Sendable, Equatable {
        package var f32 = 0
        package var bf16 = 0
        package var fp8 = 0
        package var int8 = 0
        package var fp4 = 0

        package init() {}

        /// The numbers in the order of the kernels' types.
        var byType: (Int64, Int64, Int64, Int64, Int64) {
            (Int64(f32), Int64(bf16), Int64(fp8), Int64(int8), Int64(fp4))
        }

        package subscript(type: DType) -> Int {
            get {
                switch type {
                case .f32: f32
                case .bf16: bf16
                case .fp8: fp8
                case .int8: int8
                case .fp4: fp4
                }
            }
            set {
                switch type {
                case .f32: f32 = newValue
                case .bf16: bf16 = newValue
                case .fp8: fp8 = newValue
                case .int8: int8 = newValue
                case .fp4: fp4 = newValue
                }
            }
        }
    }

    /// Describes a number of a tuning by its name in files.
    package struct Setting: Sendable {
        package let name: String
        package let path: any WritableKeyPath<Tuning, Int> & Sendable
        package let legal: ClosedRange<Int>

        fileprivate init(
            _ name: String, _ path: any WritableKeyPath<Tuning, Int> & Sendable, _ legal: ClosedRange<Int>
        ) {
            (self.name, self.path, self.legal) = (name, path, legal)
        }
    }

    /// The numbers that differ from the defaults, in the order of `settings`.
    package var changes: [(name: String, value: Int)] {
        Self.settings.map { ($0.name, self[keyPath: $0.path], Tuning()[keyPath: $0.path]) }
            .filter { $0.1 != $0.2 }.map { (name: $0.0, value: $0.1) }
    }

    /// All numbers of a tuning with their legal ranges.
    package static let settings = [
        Setting("min_parallel_work", \.minParallelWork, 1...1 << 40),
        Setting("spins", \.spins, 0...1 << 30),
        Setting("gemv_max_rows_f32", \.gemvMaxRows.f32, 0...1024),
        Setting("gemv_max_rows_bf16", \.gemvMaxRows.bf16, 0...1024),
        Setting("gemv_max_rows_fp8", \.gemvMaxRows.fp8, 0...1024),
        Setting("gemv_max_rows_int8", \.gemvMaxRows.int8, 0...1024),
        Setting("gemv_max_rows_fp4", \.gemvMaxRows.fp4, 0...1024),
        Setting("direct_key_max_heads_f32", \.directKeyMaxHeads.f32, 0...1024),
        Setting("direct_key_max_heads_bf16", \.directKeyMaxHeads.bf16, 0...1024),
        Setting("direct_key_max_heads_fp8", \.directKeyMaxHeads.fp8, 0...1024),
        Setting("index_key_tiles", \.indexKeyTiles, 0...64),
        Setting("index_row_tile", \.indexRowTile, 1...4096),
    ]
}
