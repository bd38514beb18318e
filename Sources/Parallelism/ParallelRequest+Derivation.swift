extension ParallelRequest {
    /// Reports a size that is not legal.
    struct Violation {
        let size: Size
        let message: String
    }

    /// Reports a partition of layers that is not legal.
    struct PartitionFault {
        let message: String
        /// The most even partition for the number of stages that was intended, or for the nearest legal one.
        let nearestLegal: [Int]
    }

    /// Derives a configuration from a request's sizes; it is valid if there are no faults.
    struct Derivation {
        private(set) var configuration = ParallelConfiguration()
        private(set) var violations: [Violation] = []
        private(set) var partitionFault: PartitionFault?
        /// The request without the sizes that are wrong by themselves.
        private var request: ParallelRequest
        private let shape: ModelShape
        private let maxRanks: Int
        /// The size that decides the number of ranks; faults of that number are reported for it.
        private let origin: Size

        init(_ request: ParallelRequest, _ shape: ModelShape, maxRanks: Int) {
            self.request = request
            self.shape = shape
            self.maxRanks = maxRanks
            origin = request.tpSize == nil ? .expert : .ranks
            configuration.strategy = request.strategy ?? .interleaved
            configuration.exchange = request.exchange ?? .gathered
            checkEachAlone()
            let ranks = countRanks()
            divideLayers(stageRanks: ranks ?? 1)
            let arranged = ranks.map { arrangeAttention($0) } ?? false
            if let ranks { divideExperts(ranks, arranged: arranged) }
            if arranged { divideDense() }
            if arranged { divideKeys() }
        }

        /// The number of faults.
        var faults: Int { violations.count + (partitionFault == nil ? 0 : 1) }

        /// Returns true if none of these sizes was found wrong.
        private func sound(_ sizes: Size...) -> Bool { !violations.contains { sizes.contains($0.size) } }

        private mutating func refuse(_ size: Size, _ message: String) {
            violations.append(Violation(size: size, message: message))
        }

        private mutating func checkEachAlone() {
            for size in Size.allCases {
                if let value = request[size], let message = fault(of: size, value) { refuse(size, message) }
            }
            for violation in violations { request[violation.size] = nil }
        }

        /// Returns the fault of a value that is wrong whatever the other sizes are.
        private func fault(of size: Size, _ value: Int) -> String? {
            guard (1...maxRanks).contains(value) else { return "\(value) is not between 1 and \(maxRanks)" }
            switch size {
            case .ranks, .data, .context, .kvSharding: return nil
            case .expert where shape.experts % value != 0:
                return "\(shape.experts) experts do not divide evenly over \(value) ranks"
            case .dense:
                let width = shape.feedForwardWidths.first { !ModelShape.shares($0, over: value) }
                return width.map { "\(value) ranks cannot share a feed-forward of width \($0)" }
            case .pipeline where value > shape.layers:
                return "\(value) stages need as many layers, and the model has \(shape.layers)"
            case .expert, .pipeline: return nil
            }
        }

        /// Returns the ranks of a stage, or else the fewest that all given sizes divide; `nil` if a wrong size decides.
        private mutating func countRanks() -> Int? {
            guard origin == .expert else { return request.tpSize }
            guard sound(.data, .context) else { return nil }
            let data = request.attnDPSize ?? 1
            // KV sharding over several ranks needs that many; unless the user says otherwise, they share the rows too.
            let contextOrigin = request.attnCPSize == nil && request.dcpSize != nil ? Size.kvSharding : .context
            if contextOrigin == .kvSharding { request.attnCPSize = request.dcpSize }
            let rows = data * (request.attnCPSize ?? 1)
            if rows > maxRanks {
                refuse(contextOrigin, "with attn_dp_size \(data) it needs \(rows) ranks, and \(maxRanks) is the most")
                return nil
            }
            let expert = request.epSize ?? 1
            let ranks = rows / greatestCommonDivisor(rows, expert) * expert
            if ranks > maxRanks {
                refuse(
                    .expert,
                    "\(expert) and the \(rows) ranks of attention need \(ranks) ranks together, and \(maxRanks) is the "
                        + "most")
                return nil
            }
            return sound(.expert) ? ranks : nil
        }

        /// Divides the layers into stages.
        ///
        /// - Parameter stageRanks: the ranks of a stage; 1 if unknown, so that the number of stages is judged alone.
        private mutating func divideLayers(stageRanks ranks: Int) {
            if let stages = request.ppSize, stages * ranks > maxRanks {
                refuse(
                    .pipeline,
                    "\(stages) stages of \(ranks) ranks need \(stages * ranks) ranks together, and \(maxRanks) is the "
                        + "most")
                request.ppSize = nil
            }
            configuration.pipeline = request.ppSize ?? 1
            guard let partition = request.ppLayerPartition else { return }
            if let message = fault(of: partition, stageRanks: ranks) {
                let most = min(shape.layers, maxRanks / ranks)
                let stages = request.ppSize ?? max(1, min(partition.count, most))
                let even = ParallelConfiguration(pipeline: stages)
                partitionFault = PartitionFault(
                    message: message,
                    nearestLegal: (0..<stages).map { even.layers(ofStage: $0, total: shape.layers).count })
            } else {
                configuration.pipeline = partition.count
                configuration.stageLayers = partition
            }
        }

        private func fault(of partition: [Int], stageRanks ranks: Int) -> String? {
            let list = partition.commaList
            guard !partition.isEmpty else { return "no stage is given any layers" }
            if let stages = request.ppSize, stages != partition.count {
                let given = partition.count == 1 ? "1 stage" : "\(partition.count) stages"
                return "\(list) gives \(given), and pp_size is \(stages)"
            }
            // Checked before they are added, so that the sum cannot overflow.
            if let layers = partition.first(where: { !(1...shape.layers).contains($0) }) {
                return "\(list) has a stage of \(layers) layers, which is not between 1 and \(shape.layers)"
            }
            let sum = partition.reduce(0, +)
            if sum != shape.layers { return "\(list) adds up to \(sum) layers, and the model has \(shape.layers)" }
            if partition.count * ranks > maxRanks {
                let all = partition.count * ranks
                return
                    "\(list) gives \(partition.count) stages of \(ranks) ranks, \(all) together, "
                    + "and \(maxRanks) is the most"
            }
            return nil
        }

        /// Returns true if the degrees of attention are known and legal.
        private mutating func arrangeAttention(_ ranks: Int) -> Bool {
            let data = request.attnDPSize ?? 1
            if ranks % data != 0 { refuse(.data, "\(ranks) ranks do not divide evenly into \(data) groups") }
            // If the groups are wrong, context is judged as if there were one.
            let left = sound(.data) ? ranks / data : ranks
            let context = request.attnCPSize ?? (request.contextFillsRanks ? left : 1)
            if left % context != 0 {
                let whole = left == ranks ? "\(ranks) ranks" : "the \(left) ranks of each of \(data) groups"
                refuse(.context, "\(whole) do not divide evenly over \(context) context ranks")
            }
            guard sound(.data, .context) else { return false }
            let tensor = left / context
            if shape.heads % tensor != 0 {
                refuse(
                    origin,
                    "\(ranks) ranks over attn_dp_size \(data) × attn_cp_size \(context) leave \(tensor) to share "
                        + "\(shape.heads) \(shape.headsName), which do not divide evenly")
                return false
            }
            configuration.data = data
            configuration.context = context
            configuration.tensor = tensor
            return true
        }

        private mutating func divideExperts(_ ranks: Int, arranged: Bool) {
            guard sound(.ranks, .expert) else { return }
            if let expert = request.epSize, ranks % expert != 0 {
                return refuse(.expert, "\(ranks) ranks do not divide evenly over \(expert)")
            }
            guard arranged else { return }
            let degrees = shape.expertDegrees(ranks: ranks)
            if let expert = request.epSize {
                guard degrees.contains(expert) else {
                    return refuse(
                        .expert,
                        "it leaves \(ranks / expert) ranks to share each expert, whose width \(shape.expertWidth) "
                            + "cannot be divided so")
                }
                configuration = divided(expert, shape.expertTensor(expert: expert, ranks: ranks))
                return
            }
            let choices = degrees.reversed().map { divided($0, shape.expertTensor(expert: $0, ranks: ranks)) }
            // The last choice keeps experts whole even if several ranks could share their width.
            configuration = (choices + [divided(1, 1)]).first { $0.isBitwiseEqual(for: shape) } ?? choices[0]
        }

        /// Returns the configuration with these degrees for the experts.
        private func divided(_ expert: Int, _ expertTensor: Int) -> ParallelConfiguration {
            var configuration = configuration
            configuration.expert = expert
            configuration.expertTensor = expertTensor
            return configuration
        }

        private mutating func divideKeys() {
            guard sound(.kvSharding), let owners = request.dcpSize else { return }
            let ranks = configuration.context * configuration.tensor
            guard ranks % owners == 0 else {
                return refuse(
                    .kvSharding, "the \(ranks) ranks of a data group do not divide evenly into sets of \(owners)")
            }
            configuration.kvSharding = KVSharding(
                ranks: owners, unit: min(max(request.dcpInterleave ?? 1, 1), 65_536),
                minKeys: max(request.dcpMinKeys ?? KVSharding().minKeys, 0))
        }

        private mutating func divideDense() {
            guard sound(.dense) else { return }
            let tensor = configuration.tensor
            if let given = request.moeDenseTPSize, given != 1, given != tensor {
                return refuse(.dense, "\(given) is neither 1 nor the tensor degree of attention, \(tensor)")
            }
            configuration.denseTensor =
                request.moeDenseTPSize
                ?? (shape.feedForwardWidths.allSatisfy { ModelShape.shares($0, over: tensor) } ? tensor : 1)
        }
    }
}

private func greatestCommonDivisor(_ a: Int, _ b: Int) -> Int { b == 0 ? a : greatestCommonDivisor(b, a % b) }
