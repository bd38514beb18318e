/// A chunk sizer chooses the number of prompt tokens in the next chunk so that all chunks of a long prompt take about
/// the same time: attention over a longer prefix costs more per token, so later chunks are smaller. Pipeline stages
/// then wait less for each other. Results do not depend on chunk sizes.
///
/// The time of a prompt of n tokens is modelled as `f(n) = a·n² + b·n`, so a chunk of x tokens after L takes `f(L + x)
/// − f(L)`. Least squares fit a and b to the chunks measured so far; until there are enough of them, chunks have the
/// base size. The constant cost of a step is part of b: chunks of one size cannot separate the two.
struct ChunkSizer: Sendable {
    /// The size of a prompt's first chunk, and the largest size of any chunk.
    let base: Int
    /// Chunk sizes are multiples of this number where possible.
    let unit: Int
    /// The sums over all samples of the products of `a: (2L + x)·x`, `b: x` and `t: seconds`.
    private var sums = (aa: 0.0, ab: 0.0, bb: 0.0, at: 0.0, bt: 0.0)
    private var samples = 0
    private static let enough = 8

    init(base: Int, unit: Int) {
        self.base = base
        self.unit = unit
    }

    /// Adds the measured time of a step that consisted of one prompt chunk.
    mutating func learn(start: Int, rows: Int, seconds: Double) {
        // Lengths are in units of the base, so that the sums are of one magnitude.
        let (before, size) = (Double(start) / Double(base), Double(rows) / Double(base))
        let square = (2 * before + size) * size
        sums.aa += square * square
        sums.ab += square * size
        sums.bb += size * size
        sums.at += square * seconds
        sums.bt += size * seconds
        samples += 1
    }

    /// Returns the number of tokens of the chunk after `start` tokens of a prompt.
    func rows(after start: Int) -> Int {
        guard start > 0, samples >= Self.enough, let (a, b) = fit, a > 0, b > 0 else { return base }
        // In units of the base: a·x² + (2·a·L + b)·x = a + b.
        let slope = 2 * a * Double(start) / Double(base) + b
        let size = ((slope * slope + 4 * a * (a + b)).squareRoot() - slope) / (2 * a)
        let rows = Int(size * Double(base)) / unit * unit
        return min(max(rows, base / 4, 1), base)
    }

    /// The fitted a and b for lengths in units of the base; `nil` while the samples do not determine both.
    private var fit: (a: Double, b: Double)? {
        let determinant = sums.aa * sums.bb - sums.ab * sums.ab
        guard determinant > 1e-9 * sums.aa * sums.bb else { return nil }
        return (
            (sums.at * sums.bb - sums.bt * sums.ab) / determinant, (sums.bt * sums.aa - sums.at * sums.ab) / determinant
        )
    }
}
