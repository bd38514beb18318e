import Parallelism

/// Devices that compute prompts and others that decode, with keys sent from the ones to the others.
package struct Disaggregation: Sendable {
    package let prefillDevices: Int
    package let decodeDevices: Int
    package let prefill: Prediction
    package let decode: Prediction
    /// Seconds for the keys of a prompt's last chunk: those of earlier chunks are sent beside the next one's computation.
    package let transfer: Double

    /// The first token: prompt, and what of the transfer nothing hides.
    package var firstToken: Double { prefill.firstToken.total + transfer }

    /// Requests a second: as many as the slower side can do.
    package let requestRate: Double
    package let outputTokens: Int

    package var throughput: Double { requestRate * Double(outputTokens) }

    package init(
        _ planner: Planner, prefill: (prediction: Prediction, devices: Int),
        decode: (prediction: Prediction, devices: Int), _ traffic: PlannedTraffic
    ) {
        self.prefill = prefill.prediction
        self.decode = decode.prediction
        prefillDevices = prefill.devices
        decodeDevices = decode.devices
        outputTokens = traffic.output
        let last = Double(traffic.sampledChunks.last!.positions.count)
        let perToken = planner.model.kinds.reduce(0) { $0 + planner.model.layers[$1].keyBytes }
        let receiver = decode.prediction.parallel
        // Every memory that keeps a key gets it once.
        let sharesMemory = planner.cluster.hardware.kind == .processor
        let copies = sharesMemory ? 1 : Double(receiver.context * receiver.tensor / receiver.kvSharding.ranks)
        let links = Double(min(prefill.devices, decode.devices))
        let bandwidth = planner.cluster.hardware.hostLinkBandwidth * planner.efficiencies.link
        transfer = last * perToken * copies / (links * bandwidth)
        let prompts = Double(prefill.prediction.parallel.data) / prefill.prediction.occupancy
        let answers =
            Double(traffic.concurrency) / (Double(traffic.output) * decode.prediction.perToken.total)
        requestRate = min(prompts, answers)
    }
}

extension Planner {
    /// The best pair of layouts for each way of dividing the devices, best first.
    package func disaggregations(_ traffic: PlannedTraffic, _ objectives: Objectives) -> [Disaggregation] {
        let devices = cluster.devices
        let quarter = max(devices / 4, 1)
        let splits = Set([quarter, devices / 2, devices - quarter]).filter { $0 > 0 && $0 < devices }.sorted()
        let pairs = splits.compactMap { pair(traffic, objectives, prefillDevices: $0) }
        return pairs.sorted { a, b in
            let (left, right) = (meets(objectives, a) ? 0 : 1, meets(objectives, b) ? 0 : 1)
            return (left, -a.throughput) < (right, -b.throughput)
        }
    }

    private func meets(_ objectives: Objectives, _ pair: Disaggregation) -> Bool {
        pair.firstToken <= objectives.firstToken ?? .infinity
            && pair.decode.perToken.total <= objectives.perToken ?? .infinity
    }

    private func pair(
        _ traffic: PlannedTraffic, _ objectives: Objectives, prefillDevices: Int
    ) -> Disaggregation? {
        func predictions(_ devices: Int, _ traffic: PlannedTraffic) -> [Prediction] {
            let planner = Planner(model, Cluster(cluster.hardware, devices: devices), efficiencies)
            return planner.predictions(planner.layouts, traffic).filter(\.fits)
        }
        // Prompts leave as soon as they are computed.
        var prompts = traffic
        prompts.concurrency = 1
        let prefills = predictions(prefillDevices, prompts)
        let decodes = predictions(cluster.devices - prefillDevices, traffic)
        let smooth = decodes.filter { $0.perToken.total <= objectives.perToken ?? .infinity }
        guard let decode = (smooth.isEmpty ? decodes : smooth).min(by: { $0.perToken.total < $1.perToken.total })
        else { return nil }
        let answers = Double(traffic.concurrency) / (Double(traffic.output) * decode.perToken.total)
        guard let prefill = Self.prefill(prefills, objectives, answers: answers) else { return nil }
        return Disaggregation(
            self, prefill: (prefill, prefillDevices), decode: (decode, cluster.devices - prefillDevices), traffic)
    }

    /// The quickest to the first token of those that keep up with the decoding side; where none does, the one that
    /// computes most prompts.
    private static func prefill(
        _ predictions: [Prediction], _ objectives: Objectives, answers: Double
    ) -> Prediction? {
        func rate(_ prediction: Prediction) -> Double { Double(prediction.parallel.data) / prediction.occupancy }
        let quick = predictions.filter { $0.firstToken.total <= objectives.firstToken ?? .infinity }
        let legal = quick.isEmpty ? predictions : quick
        return legal.filter { rate($0) >= answers }.min { $0.firstToken.total < $1.firstToken.total }
            ?? legal.max { rate($0) < rate($1) }
    }
}
