extension Range<Int> {
    /// What the rank at `place` of so many has of `count` things: a consecutive run, evenly where it divides.
    package init(part place: Int, of ranks: Int, among count: Int) {
        precondition((0..<ranks).contains(place) && count >= 0, "part \(place) of \(ranks) among \(count)")
        self = count * place / ranks..<count * (place + 1) / ranks
    }
}
