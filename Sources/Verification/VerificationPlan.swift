import Inference
package import Parallelism

/// Which cases a verification runs: all there are, or a sample that has every mesh before it has one twice, every
/// combination of conditions before it has one twice, and every two values of two dimensions together as soon as can be.
/// A layout comes twice before all have come once only where no other has a value of it, as one rank has none beside it.
package struct VerificationPlan: Sendable {
    /// In order of the number of ranks.
    package let cases: [VerificationCase]
    /// How many there are to choose from.
    package let total: Int
    /// Pairs of values of two dimensions: how many some case has, and how many there are in all that could be chosen from.
    package let pairs: (covered: Int, total: Int)

    /// - Parameters:
    ///   - layouts: all different.
    ///   - conditions: all different.
    ///   - limit: cases at most, at least 1.
    ///   - seed: equal seeds choose equal cases.
    package init(_ layouts: [ParallelConfiguration], _ conditions: [ServingConditions], limit: Int, seed: UInt64) {
        precondition(limit > 0 && !layouts.isEmpty && !conditions.isEmpty)
        total = layouts.count * conditions.count
        var pairs = ValuePairs(layouts, conditions)
        var chosen: [Choice] = []
        if total <= limit {
            chosen = layouts.indices.flatMap { layout in conditions.indices.map { Choice(layout, $0) } }
            for choice in chosen where pairs.missingCount > 0 { pairs.cover(choice) }
        } else {
            var random = SeededGenerator(seed: seed, stream: 1 << 32)
            let order = Self.alternating(layouts, &random)
            let meshes = Set(layouts.map(\.mesh)).count
            chosen = Self.sample(
                order, conditions.indices.shuffled(using: &random), limit: limit, meshes: meshes, &pairs)
        }
        self.pairs = (pairs.total - pairs.missingCount, pairs.total)
        cases = chosen.sorted { ($0.layout, $0.conditions) < ($1.layout, $1.conditions) }
            .map { VerificationCase(layouts[$0.layout], conditions[$0.conditions]) }
    }

    /// A case, by its place in the lists it was chosen from.
    struct Choice: Hashable {
        let layout: Int
        let conditions: Int

        init(_ layout: Int, _ conditions: Int) { (self.layout, self.conditions) = (layout, conditions) }
    }

    /// Different cases, fewer than there are.
    ///
    /// - Parameters:
    ///   - order: all layouts, one of each mesh first.
    ///   - loads: all combinations of conditions.
    private static func sample(
        _ order: [Int], _ loads: [Int], limit: Int, meshes: Int, _ pairs: inout ValuePairs
    ) -> [Choice] {
        var (chosen, known): ([Choice], Set<Choice>) = ([], [])
        var (layoutsLeft, loadsLeft): ([Int], [Int]) = ([], [])
        while chosen.count < limit {
            if layoutsLeft.isEmpty { layoutsLeft = order }
            let isGreedy = chosen.count >= meshes && pairs.missingCount > 0
            let layout: Int
            if isGreedy, let best = pairs.bestLayout(of: layoutsLeft) {
                layout = layoutsLeft.remove(at: best)
            } else if isGreedy, let best = pairs.bestLayout(of: order) {
                layout = order[best]
            } else {
                layout = layoutsLeft.removeFirst()
            }
            func isNew(_ load: Int) -> Bool { !known.contains(Choice(layout, load)) }
            if !loadsLeft.contains(where: isNew) { loadsLeft += loads }
            let best = pairs.missingCount == 0 ? nil : pairs.bestConditions(of: loadsLeft, for: layout)
            // A layout that was chosen with all conditions is passed over.
            guard let place = best ?? loadsLeft.firstIndex(where: isNew) else { continue }
            let choice = Choice(layout, loadsLeft.remove(at: place))
            pairs.cover(choice)
            known.insert(choice)
            chosen.append(choice)
        }
        return chosen
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
    /// How many cases have each value of each dimension.
    package var coverage: [Coverage] { Coverage.all(of: cases) }

    /// The values that cases have in one dimension.
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
    /// The value of every dimension, by name; `-` where a layout has no use for it.
    package var values: [(axis: String, value: String)] { layout.values + conditions.values }
}

extension ParallelConfiguration {
    /// The values of a layout's dimensions, by name; `-` where it has no use for one.
    var values: [(axis: String, value: String)] {
        let (sharesRows, divides) = (context > 1, kvSharding.ranks > 1)
        let exchanges = stageRanks > 1 && !replicatesExperts
        return [
            ("ranks", "\(world)"), ("context", "\(context)"), ("tensor", "\(tensor)"), ("data", "\(data)"),
            ("stages", "\(pipeline)"), ("experts", "\(expert)"), ("expert tensor", "\(expertTensor)"),
            ("strategy", sharesRows ? strategy.rawValue : "-"), ("exchange", exchanges ? exchange.notation : "-"),
            ("dcp", "\(kvSharding.ranks)"), ("dcp unit", divides ? "\(kvSharding.unit)" : "-"),
            ("dcp min keys", divides ? "\(kvSharding.minKeys)" : "-"),
        ]
    }
}

extension ServingConditions {
    /// The value of each condition, by name.
    var values: [(axis: String, value: String)] { Self.axes.map { ($0.name, $0.value(self)) } }
}
