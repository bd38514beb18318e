/// Chooses how many prompt tokens the next chunk has, so that all chunks of a long prompt take about the same time:
/// attention over a longer prefix costs more per token, so later chunks are smaller. Stages of a pipeline then wait
/// less for each other. Results do not depend on it, since they do not depend on chunks.
///
/// The time of a prompt of n tokens is taken to be `f(n) = a·n² + b·n`, so a chunk of x after L takes `f(L + x) − f(L)`.
/// The two numbers are fitted to the chunks seen so far by least squares; until there are enough of them, chunks have
/// the base size. What a step costs apart from its rows is in b: chunks of one size cannot tell the two apart.
struct ChunkSizer: Sendable {
    /// The size of a prompt's first chunk, and the most any chunk has.
    let base: Int
    /// Sizes are multiples of this where they can be.
    let unit: Int
    /// Sums over samples of the products of (2L + x)·x, x and the seconds.
    private var sums = (aa: 0.0, ab: 0.0, bb: 0.0, at: 0.0, bt: 0.0)
    private var samples = 0
    private static let enough = 8

    init(base: Int, unit: Int) {
        self.base = base
        self.unit = unit
    }

    /// Takes the time of a step that was one chunk of one prompt and nothing else.
    mutating func learn(start: Int, rows: Int, seconds: Double) {
        // In units of the base, so that the sums are of one magnitude.
        let (before, size) = (Double(start) / Double(base), Double(rows) / Double(base))
        let square = (2 * before + size) * size
        sums.aa += square * square
        sums.ab += square * size
        sums.bb += size * size
        sums.at += square * seconds
        sums.bt += size * seconds
        samples += 1
    }

    /// How many tokens the chunk has that follows `start` tokens of a prompt.
    func rows(after start: Int) -> Int {
        guard start > 0, samples >= Self.enough, let (a, b) = fit, a > 0, b > 0 else { return base }
        // In units of the base: a·x² + (2·a·L + b)·x = a + b.
        let slope = 2 * a * Double(start) / Double(base) + b
        let size = ((slope * slope + 4 * a * (a + b)).squareRoot() - slope) / (2 * a)
        let rows = Int(size * Double(base)) / unit * unit
        return min(max(rows, base / 4, 1), base)
    }

    /// a and b for lengths in units of the base; `nil` while the samples do not tell them apart.
    private var fit: (a: Double, b: Double)? {
        let determinant = sums.aa * sums.bb - sums.ab * sums.ab
        guard determinant > 1e-9 * sums.aa * sums.bb else { return nil }
        return (
            (sums.at * sums.bb - sums.bt * sums.ab) / determinant, (sums.bt * sums.aa - sums.at * sums.ab) / determinant
        )
    }
}
