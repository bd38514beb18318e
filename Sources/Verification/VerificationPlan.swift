package import Inference
package import Parallelism

/// Which cases a verification runs: all there are, or a sample that has every mesh before it has one twice, and every
/// combination of conditions before it has one twice.
package struct VerificationPlan: Sendable {
    /// In order of the number of ranks.
    package let cases: [VerificationCase]
    /// How many there are to choose from.
    package let total: Int

    /// - Parameters:
    ///   - layouts: all different.
    ///   - conditions: all different.
    ///   - limit: cases at most, at least 1.
    ///   - seed: equal seeds choose equal cases.
    package init(_ layouts: [ParallelConfiguration], _ conditions: [ServingConditions], limit: Int, seed: UInt64) {
        precondition(limit > 0 && !layouts.isEmpty && !conditions.isEmpty)
        total = layouts.count * conditions.count
        var chosen: [(layout: Int, conditions: Int)] = []
        if total <= limit {
            chosen = layouts.indices.flatMap { layout in conditions.indices.map { (layout, $0) } }
        } else {
            // Both lists in an order of their own, side by side; in the next round one is shifted against the other.
            var random = SeededGenerator(seed: seed, stream: 1 << 32)
            let order = Self.alternating(layouts, &random)
            let loads = conditions.indices.shuffled(using: &random)
            for round in 0..<loads.count where chosen.count < limit {
                chosen += order.prefix(limit - chosen.count).enumerated().map { place, layout in
                    (layout, loads[(place + round) % loads.count])
                }
            }
        }
        cases = chosen.sorted { $0 < $1 }.map { VerificationCase(layouts[$0.layout], conditions[$0.conditions]) }
    }

    /// The layouts' numbers: one of each mesh, then another of each, …, chosen at random.
    private static func alternating(
        _ layouts: [ParallelConfiguration], _ random: inout SeededGenerator
    ) -> [Int] {
        var queues: [[Int]] = []
        var places: [Mesh: Int] = [:]
        for (number, layout) in layouts.enumerated() {
            let place = places[layout.mesh] ?? queues.count
            if place == queues.count { queues.append([]) }
            places[layout.mesh] = place
            queues[place].append(number)
        }
        queues = queues.map { $0.shuffled(using: &random) }.shuffled(using: &random)
        let longest = queues.map(\.count).max() ?? 0
        return (0..<longest).flatMap { place in queues.compactMap { place < $0.count ? $0[place] : nil } }
    }
}

extension VerificationPlan {
    /// How many cases have each value of each degree of freedom.
    package var coverage: [Coverage] { Coverage.all(of: cases) }

    /// The values that cases have of one degree of freedom.
    package struct Coverage: Sendable, Equatable {
        package let axis: String
        /// Numbers ascending, words as they come.
        package let values: [(value: String, cases: Int)]

        package static func == (a: Self, b: Self) -> Bool {
            a.axis == b.axis && a.values.elementsEqual(b.values, by: ==)
        }

        fileprivate static func all(of cases: [VerificationCase]) -> [Coverage] {
            let names = cases.first.map { $0.values.map(\.axis) } ?? []
            return names.enumerated().map { index, axis in
                var counts: [String: Int] = [:]
                var order: [String] = []
                for value in cases.map({ $0.values[index].value }) {
                    if counts.updateValue((counts[value] ?? 0) + 1, forKey: value) == nil { order.append(value) }
                }
                let sorted = order.allSatisfy { Int($0) != nil } ? order.sorted { Int($0)! < Int($1)! } : order
                return Coverage(axis: axis, values: sorted.map { ($0, counts[$0]!) })
            }
        }
    }
}

extension VerificationCase {
    /// The value of every degree of freedom, by name; `-` where a layout has no use for it.
    package var values: [(axis: String, value: String)] {
        let (sharesRows, divides) = (layout.context > 1, layout.kvSharding.ranks > 1)
        let exchanges = layout.stageRanks > 1 && !layout.replicatesExperts
        let ofLayout = [
            ("ranks", "\(layout.world)"), ("context", "\(layout.context)"), ("tensor", "\(layout.tensor)"),
            ("data", "\(layout.data)"), ("stages", "\(layout.pipeline)"), ("experts", "\(layout.expert)"),
            ("expert width", "\(layout.expertTensor)"), ("strategy", sharesRows ? layout.strategy.rawValue : "-"),
            ("exchange", exchanges ? layout.exchange.notation : "-"), ("dcp", "\(layout.kvSharding.ranks)"),
            ("dcp unit", divides ? "\(layout.kvSharding.unit)" : "-"),
            ("dcp min keys", divides ? "\(layout.kvSharding.minKeys)" : "-"),
        ]
        return ofLayout + ServingConditions.axes.map { ($0.name, $0.value(conditions)) }
    }
}
