import Inference
package import Parallelism
import Tensors

/// A verification plan lists the cases that a verification runs: all there are, or a sample. A sample has every mesh
/// once before any twice, every combination of conditions once before any twice, and covers all pairs of values as soon
/// as possible. A parallel configuration is repeated before all have occurred only where no other has one of its
/// values, as with one rank.
package struct VerificationPlan: Sendable {
    /// The cases in ascending order of ranks.
    package internal(set) var cases: [VerificationCase]
    /// The number of cases of the whole matrix.
    package let total: Int
    /// The numbers of pairs of values of two dimensions: those that occur in some case of the plan, and those of the
    /// whole matrix.
    package let pairs: (covered: Int, total: Int)
    /// The numbers of pairs of a value of the prefill server and one of the other server; 0 without prefill servers.
    package internal(set) var prefillPairs: (covered: Int, total: Int) = (0, 0)

    /// - Parameters:
    ///   - layouts: The parallel configurations, all different.
    ///   - conditions: The combinations of conditions, all different.
    ///   - limit: The largest number of cases, at least 1.
    ///   - seed: The seed of the sample; equal seeds choose equal cases.
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

    /// Creates the plan of one case.
    package init(only candidate: VerificationCase) {
        self.init([candidate.layout], [candidate.conditions], limit: 1, seed: 1)
        cases = [candidate]
    }

    /// A choice is a case, given by its indices in the lists it was chosen from.
    struct Choice: Hashable {
        let layout: Int
        let conditions: Int

        init(_ layout: Int, _ conditions: Int) { (self.layout, self.conditions) = (layout, conditions) }
    }

    /// Returns `limit` different cases, fewer than there are.
    ///
    /// - Parameters:
    ///   - order: The indices of all parallel configurations, one of each mesh first.
    ///   - loads: The indices of all combinations of conditions.
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
            // A configuration that was chosen with all conditions is skipped.
            guard let place = best ?? loadsLeft.firstIndex(where: isNew) else { continue }
            let choice = Choice(layout, loadsLeft.remove(at: place))
            pairs.cover(choice)
            known.insert(choice)
            chosen.append(choice)
        }
        return chosen
    }

    /// Returns the indices of the parallel configurations in random order: one of each mesh, then another of each, and
    /// so on.
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
    /// Returns the plan with those cases in the profile `f32` whose layouts are equal to one rank only to rounding. In
    /// `bf16` a difference in the last bit can become one of a whole rounding step of an operand, which can change the
    /// choice of an expert: there nothing could be told from a fault.
    package func comparingRoundedLayoutsInF32(_ shape: ModelShape) -> VerificationPlan {
        var plan = self
        for index in cases.indices where !cases[index].isBitwiseEqual(for: shape) {
            plan.cases[index].conditions.profile = .f32
        }
        return plan
    }

    /// Counts, for each value of each dimension, the cases that have it.
    package var coverage: [Coverage] { Coverage.all(of: cases) }

    /// Coverage lists the values of one dimension, with the number of cases that have them.
    package struct Coverage: Sendable, Equatable {
        package let axis: String
        /// Numbers are in ascending order, words in order of occurrence.
        package let values: [(value: String, cases: Int)]

        package static func == (a: Self, b: Self) -> Bool {
            a.axis == b.axis && a.values.elementsEqual(b.values, by: ==)
        }

        fileprivate static func all(of cases: [VerificationCase]) -> [Coverage] {
            let all = cases.map { $0.values + $0.prefillValues }
            let names = all.first.map { $0.map(\.axis) } ?? []
            return names.enumerated().map { index, axis in
                var counts: [String: Int] = [:]
                var order: [String] = []
                for value in all.map({ $0[index].value }) {
                    if counts.updateValue((counts[value] ?? 0) + 1, forKey: value) == nil { order.append(value) }
                }
                let sorted = order.allSatisfy { Int($0) != nil } ? order.sorted { Int($0)! < Int($1)! } : order
                return Coverage(axis: axis, values: sorted.map { ($0, counts[$0]!) })
            }.filter { $0.values.map(\.value) != ["-"] }
        }
    }
}

extension VerificationCase {
    /// Returns true if the answers must be bitwise equal to those of one rank.
    func isBitwiseEqual(for shape: ModelShape) -> Bool {
        layout.isBitwiseEqual(for: shape) && prefill?.layout.isBitwiseEqual(for: shape) ?? true
    }

    /// The value of every dimension of the server that answers, by name; `-` where it does not apply to the parallel
    /// configuration.
    package var values: [(axis: String, value: String)] { layout.values + conditions.values }

    /// The value of every dimension of the prefill server, by name; `-` if there is none.
    package var prefillValues: [(axis: String, value: String)] { prefill?.values ?? PrefillServer.noValues }
}

extension ParallelConfiguration {
    /// The values of the configuration's dimensions, by name; `-` where a dimension does not apply.
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
    /// The value of each condition, with its name.
    var values: [(axis: String, value: String)] { Self.axes.map { ($0.name, $0.value(self)) } }
}
