import Modeling
package import Parallelism

/// Predicts all layouts of a cluster and ranks them.
package struct Planner: Sendable {
    /// What an answer must not exceed, in seconds.
    package struct Objectives: Sendable {
        package var firstToken: Double?
        package var perToken: Double?

        package init(firstToken: Double? = nil, perToken: Double? = nil) {
            (self.firstToken, self.perToken) = (firstToken, perToken)
        }

        package func areMet(by prediction: Prediction) -> Bool {
            prediction.firstToken.total <= firstToken ?? .infinity
                && prediction.perToken.total <= perToken ?? .infinity
        }
    }

    package let model: PlannedModel
    package let cluster: Cluster
    package let efficiencies: Efficiencies

    package init(_ model: PlannedModel, _ cluster: Cluster, _ efficiencies: Efficiencies) {
        self.model = model
        self.cluster = cluster
        self.efficiencies = efficiencies
    }

    /// Every layout of as many ranks as there are devices that is different for planning: rows are assigned round-robin, keys
    /// owned token by token, stages even.
    package var layouts: [ParallelConfiguration] {
        LayoutMatrix(
            model.description.parallelShape, minRanks: cluster.devices, maxRanks: cluster.devices,
            strategies: [.interleaved], minKeys: [KVSharding().minKeys]
        ).layouts.filter { $0.stageLayers == nil && $0.kvSharding.unit == 1 }
    }

    /// Those of them that options of commands can choose: where a stage has several ranks, options always divide the experts.
    package var startableLayouts: [ParallelConfiguration] {
        layouts.filter { $0.stageRanks == 1 || !$0.replicatesExperts }
    }

    /// Predictions of layouts, in their order.
    package func predictions(_ layouts: [ParallelConfiguration], _ traffic: PlannedTraffic) -> [Prediction] {
        // How many ranks a row goes to follows from few of a layout's degrees, and is not quick to find.
        var chances: [[Int]: Double] = [:]
        return layouts.map { parallel in
            let key =
                parallel.exchange == .allToAll ? [parallel.expert, parallel.expertTensor, parallel.stageRanks] : []
            let chance =
                chances[key] ?? LayoutTime.dispatchProbability(model.description, parallel)
            chances[key] = chance
            return Prediction(LayoutTime(model, parallel, cluster, efficiencies, dispatch: chance), traffic)
        }
    }

    /// Best first: those with room before those without, those that meet all objectives before others, and then by
    /// throughput, which for a single request is the time of its whole answer.
    package func ranked(_ predictions: [Prediction], _ objectives: Objectives) -> [Prediction] {
        func key(_ prediction: Prediction) -> (Int, Int, Double) {
            (
                prediction.fits ? 0 : 1, objectives.areMet(by: prediction) ? 0 : 1,
                -prediction.throughput
            )
        }
        return predictions.enumerated().sorted { a, b in
            let (left, right) = (key(a.element), key(b.element))
            return left == right ? a.offset < b.offset : left < right
        }.map(\.element)
    }
}
