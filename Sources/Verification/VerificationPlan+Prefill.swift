import Inference
package import Parallelism

extension VerificationPlan {
    /// The share of a plan's cases in which another server computes the prompts.
    package enum PrefillShare: String, Sendable, CaseIterable {
        case none, some, all
    }

    /// Returns the plan with a prefill server in some cases: those whose servers can differ in most values that have not
    /// met in a case before.
    ///
    /// - Parameters:
    ///   - layouts: The parallel configurations of prefill servers.
    ///   - seed: The seed of the choice.
    package func withPrefillServers(
        _ share: PrefillShare, _ layouts: [ParallelConfiguration], seed: UInt64
    ) -> VerificationPlan {
        if share == .none { return self }
        var plan = self
        var random = SeededGenerator(seed: seed, stream: 2 << 32)
        var choice = PrefillChoice(layouts, cases)
        let order = cases.indices.shuffled(using: &random)
        for index in share == .all ? order : Array(order.prefix((order.count + 4) / 5)) {
            plan.cases[index].prefill = choice.next(for: cases[index], &random)
        }
        plan.prefillPairs = choice.pairs
        return plan
    }
}

/// Chooses prefill servers for cases, so that every value of a prefill server soon meets every value of another server.
private struct PrefillChoice {
    /// The parallel configurations of each mesh. All meshes are chosen equally often, so that rare degrees are too.
    private let layouts: [[ParallelConfiguration]]
    private let values: ServingConditions.Values
    /// The numbers of all values, by name.
    private var numbers: [String: Int] = [:]
    private var covered: Set<Pair> = []
    private let total: Int

    private struct Pair: Hashable {
        let prefill: Int
        let decode: Int
    }

    /// The number of random servers of which the best is chosen.
    private static let candidates = 24

    init(_ layouts: [ParallelConfiguration], _ cases: [VerificationCase]) {
        var places: [Mesh: Int] = [:]
        var meshes: [[ParallelConfiguration]] = []
        for layout in layouts {
            let place = places[layout.mesh] ?? meshes.count
            if place == meshes.count { meshes.append([]) }
            places[layout.mesh] = place
            meshes[place].append(layout)
        }
        self.layouts = meshes
        let values = ServingConditions.Values(cases.map(\.conditions))
        self.values = values
        func count(_ values: [[(axis: String, value: String)]]) -> Int {
            Set(values.joined().map { "\($0.axis) \($0.value)" }).count
        }
        let servers = PrefillServer.all(layouts[0], values)
        let own = servers.map { server in PrefillServer.axes.map { ($0.name, $0.value(server)) } }
        let ofServers = count(layouts.map(\.values)) + count(own)
        // Not every number of drafts can meet every other.
        let impossible = values.drafts.flatMap { decode in
            values.drafts.map { prefill in
                var (server, conditions) = (servers[0], ServingConditions())
                (server.drafts, conditions.drafts) = (prefill, decode)
                return server.canServe(conditions)
            }
        }.count { !$0 }
        total = ofServers * count(cases.map { $0.layout.values + $0.conditions.values }) - impossible
    }

    var pairs: (covered: Int, total: Int) { (covered.count, total) }

    mutating func next(for candidate: VerificationCase, _ random: inout some RandomNumberGenerator) -> PrefillServer {
        let own = (candidate.layout.values + candidate.conditions.values).map { number(of: $0) }
        var best: (server: PrefillServer, pairs: [Pair], gain: Int)?
        for _ in 0..<Self.candidates {
            let server = server(for: candidate.conditions, &random)
            let pairs = server.values.map { number(of: $0) }.flatMap { value in
                own.map { Pair(prefill: value, decode: $0) }
            }
            let gain = pairs.count { !covered.contains($0) }
            if gain > best?.gain ?? -1 { best = (server, pairs, gain) }
        }
        covered.formUnion(best!.pairs)
        return best!.server
    }

    private func server(
        for conditions: ServingConditions, _ random: inout some RandomNumberGenerator
    ) -> PrefillServer {
        var server = PrefillServer(layouts.randomElement(using: &random)!.randomElement(using: &random)!)
        server.chunk = values.chunks.randomElement(using: &random)!
        server.pageSize = values.pageSizes.randomElement(using: &random)!
        server.caching = PrefixCaching.allCases.randomElement(using: &random)!
        server.link = LinkFault.allCases.randomElement(using: &random)!
        let drafts = values.drafts.filter { drafts in
            var other = server
            other.drafts = drafts
            return other.canServe(conditions)
        }
        server.drafts = drafts.randomElement(using: &random)!
        return server
    }

    private mutating func number(of value: (axis: String, value: String)) -> Int {
        let name = "\(value.axis) \(value.value)"
        let number = numbers[name] ?? numbers.count
        numbers[name] = number
        return number
    }
}
