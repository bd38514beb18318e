package import Models
import Parallelism

extension StepRows {
    /// The rows of a step as they were dealt.
    package init(_ deal: Deal) {
        func furthest(_ rows: some Sequence<Deal.Row>) -> Int {
            rows.reduce(-1) { max($0, deal.plan.chunks[$1.chunk].start + $1.offset) }
        }
        self.init(
            owned: deal.rows.map(\.count), outputs: deal.outputs.map(\.count), furthest: deal.rows.map(furthest))
        let travelling = deal.rows.map { $0.filter { deal.travelling.contains($0.chunk) } }
        self.travelling = travelling.map(\.count)
        furthestTravelling = travelling.map(furthest)
        guard deal.division != nil else { return }
        let ranks = deal.configuration.context * deal.configuration.tensor
        visiting = (0..<deal.configuration.data).flatMap {
            VisitingKeys.sent(deal.visitingPages(ofGroup: $0), by: ranks, deal.configuration.ownership)
        }
    }
}
