package import Models

extension StepRows {
    /// The rows of a step as they were dealt.
    package init(_ deal: Deal) {
        self.init(
            owned: deal.rows.map(\.count), outputs: deal.outputs.map(\.count),
            furthest: deal.rows.map { rows in
                rows.reduce(-1) { max($0, deal.plan.chunks[$1.chunk].start + $1.offset) }
            })
    }
}
