/// Lists every parallel configuration that a model's shape allows, up to a number of ranks.
///
/// A dimension that makes no difference in a configuration is not varied: with one context rank there is one partition
/// strategy, and without expert parallelism there is one kind of exchange.
package struct LayoutMatrix: Sendable {
    /// Distinct configurations by number of ranks, one rank first.
    package let layouts: [ParallelConfiguration]

    /// Creates the matrix.
    ///
    /// - Parameters:
    ///   - minRanks: the fewest ranks of all stages together, at least 1.
    ///   - maxRanks: the most ranks of all stages together, at least `minRanks`.
    ///   - strategies: the partition strategies to vary, at least one.
    ///   - exchanges: the kinds of expert exchange to vary, at least one.
    ///   - minKeys: the values of `KVSharding.minKeys` to vary, at least one.
    package init(
        _ shape: ModelShape, minRanks: Int = 1, maxRanks: Int,
        strategies: [PartitionStrategy] = PartitionStrategy.allCases,
        exchanges: [ExpertExchangeKind] = ExpertExchangeKind.allCases, minKeys: [Int] = [1]
    ) {
        precondition(
            minRanks > 0 && minRanks <= maxRanks && !strategies.isEmpty && !exchanges.isEmpty && !minKeys.isEmpty)
        layouts = (minRanks...maxRanks).flatMap { Self.degrees(world: $0, shape) }
            .flatMap { Self.withExperts($0, shape) }
            .flatMap { Self.withDense($0, shape) }
            .flatMap { Self.withStages($0, shape) }
            .flatMap { Self.withKVSharding($0, minKeys) }
            .flatMap { layout in
                layout.context > 1 ? strategies.map { layout.with(\.strategy, $0) } : [layout]
            }
            .flatMap { layout in
                layout.exchangesRows ? exchanges.map { layout.with(\.exchange, $0) } : [layout]
            }
    }

    /// Returns the factors `pipeline × data × context × tensor` of a number of ranks that divide heads and layers.
    private static func degrees(world: Int, _ shape: ModelShape) -> [ParallelConfiguration] {
        divisors(of: world).filter { $0 <= shape.layers }.flatMap { stages in
            divisors(of: world / stages).flatMap { data in
                divisors(of: world / stages / data).compactMap { context in
                    let tensor = world / stages / data / context
                    guard shape.heads % tensor == 0 else { return nil }
                    return ParallelConfiguration(data: data, context: context, tensor: tensor, pipeline: stages)
                }
            }
        }
    }

    /// Varies the division of experts: every legal one, and all experts on every rank.
    private static func withExperts(_ layout: ParallelConfiguration, _ shape: ModelShape) -> [ParallelConfiguration] {
        let ranks = layout.stageRanks
        var divided = shape.expertDegrees(ranks: ranks).map { expert in
            layout.with(\.expert, expert).with(\.expertTensor, shape.expertTensor(expert: expert, ranks: ranks))
        }
        if !divided.contains(layout) { divided.append(layout) }
        return divided
    }

    private static func withDense(_ layout: ParallelConfiguration, _ shape: ModelShape) -> [ParallelConfiguration] {
        layout.tensor > 1 && shape.feedForwardWidths.allSatisfy { ModelShape.shares($0, over: layout.tensor) }
            ? [layout, layout.with(\.denseTensor, layout.tensor)] : [layout]
    }

    /// Varies KV sharding: every size of sets of ranks, with single tokens and short runs.
    private static func withKVSharding(
        _ layout: ParallelConfiguration, _ minKeys: [Int]
    ) -> [ParallelConfiguration] {
        divisors(of: layout.context * layout.tensor).flatMap { ranks in
            if ranks == 1 { return [layout] }
            return [1, 2, 4].flatMap { unit in
                minKeys.map {
                    layout.with(\.kvSharding, KVSharding(ranks: ranks, unit: unit, minKeys: $0))
                }
            }
        }
    }

    /// Varies the stages: nearly equal lengths, and one long stage after short ones.
    private static func withStages(_ layout: ParallelConfiguration, _ shape: ModelShape) -> [ParallelConfiguration] {
        let stages = layout.pipeline
        let even = (0..<stages).map { layout.layers(ofStage: $0, total: shape.layers).count }
        let uneven = [Int](repeating: 1, count: stages - 1) + [shape.layers - stages + 1]
        return even == uneven ? [layout] : [layout, layout.with(\.stageLayers, uneven)]
    }

    private static func divisors(of number: Int) -> [Int] { (1...number).filter { number % $0 == 0 } }
}

extension ParallelConfiguration {
    /// True if rows are sent to the ranks of their experts.
    fileprivate var exchangesRows: Bool { stageRanks > 1 && !replicatesExperts }

    fileprivate func with<Value>(_ path: WritableKeyPath<ParallelConfiguration, Value>, _ value: Value) -> Self {
        var copy = self
        copy[keyPath: path] = value
        return copy
    }
}
