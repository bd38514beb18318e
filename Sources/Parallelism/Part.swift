extension Range<Int> {
    /// Creates the part of `count` items that the rank at `place` of `ranks` has: a consecutive run, even if it
    /// divides.
    package init(part place: Int, of ranks: Int, among count: Int) {
        precondition((0..<ranks).contains(place) && count >= 0, "part \(place) of \(ranks) among \(count)")
        self = count * place / ranks..<count * (place + 1) / ranks
    }
}
