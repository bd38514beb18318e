/// What may be chosen for a processor because it only decides how long something takes: no result depends on it.
package struct Tuning: Sendable, Equatable {
    /// Of a team: the work of an operation below which one thread is done sooner than others are told. Counted in
    /// elements moved; sixteen multiply-adds in registers take about as long as one.
    package var minParallelWork = 1 << 13
    /// Of a team: how often a helper looks for the next operation, and the leader for the last part of one, before
    /// going to sleep. Longer than what lies between two operations of a layer; nobody spins where threads outnumber
    /// cores.
    package var spins = 4000
    /// Of a matrix product: rows, at most, that take weights as they are stored and make no panel of them.
    package var gemvMaxRows = PerType()
    /// Of attention: heads, at most, that take keys as they are stored and do not have them widened first. No cache has
    /// INT8 keys.
    package var directKeyMaxHeads = PerType()
    /// Of index scores: panels of sixteen or thirty-two keys, at most, that a tile of queries runs over. 0: as the
    /// instruction-set level does it.
    package var indexKeyTiles = 0
    /// Of a request: rows whose index scores, or whose attention at the owners of the keys, are computed together, so that
    /// keys are read once for all of them.
    package var indexRowTile = 64

    package init() {}

    /// A number for each type of element; 0: as the instruction-set level does it.
    package struct PerType: Sendable, Equatable {
        package var f32 = 0
        package var bf16 = 0
        package var fp8 = 0
        package var int8 = 0

        package init() {}

        /// In the order of the kernels' types.
        var byType: (Int64, Int64, Int64, Int64) { (Int64(f32), Int64(bf16), Int64(fp8), Int64(int8)) }

        package subscript(type: DType) -> Int {
            get {
                switch type {
                case .f32: f32
                case .bf16: bf16
                case .fp8: fp8
                case .int8: int8
                }
            }
            set {
                switch type {
                case .f32: f32 = newValue
                case .bf16: bf16 = newValue
                case .fp8: fp8 = newValue
                case .int8: int8 = newValue
                }
            }
        }
    }

    /// A number of a tuning, by its name in files.
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

    /// The numbers that are not the default's, in the order of `settings`.
    package var changes: [(name: String, value: Int)] {
        Self.settings.map { ($0.name, self[keyPath: $0.path], Tuning()[keyPath: $0.path]) }
            .filter { $0.1 != $0.2 }.map { (name: $0.0, value: $0.1) }
    }

    /// All numbers of a tuning, and what each may be.
    package static let settings = [
        Setting("min_parallel_work", \.minParallelWork, 1...1 << 40),
        Setting("spins", \.spins, 0...1 << 30),
        Setting("gemv_max_rows_f32", \.gemvMaxRows.f32, 0...1024),
        Setting("gemv_max_rows_bf16", \.gemvMaxRows.bf16, 0...1024),
        Setting("gemv_max_rows_fp8", \.gemvMaxRows.fp8, 0...1024),
        Setting("gemv_max_rows_int8", \.gemvMaxRows.int8, 0...1024),
        Setting("direct_key_max_heads_f32", \.directKeyMaxHeads.f32, 0...1024),
        Setting("direct_key_max_heads_bf16", \.directKeyMaxHeads.bf16, 0...1024),
        Setting("direct_key_max_heads_fp8", \.directKeyMaxHeads.fp8, 0...1024),
        Setting("index_key_tiles", \.indexKeyTiles, 0...64),
        Setting("index_row_tile", \.indexRowTile, 1...4096),
    ]
}
