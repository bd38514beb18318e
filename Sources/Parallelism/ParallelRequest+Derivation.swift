extension ParallelRequest {
    /// A size that cannot be what it is.
    struct Violation {
        let size: Size
        let message: String
    }

    /// What a request's sizes lead to: a configuration if there are no violations.
    struct Derivation {
        private(set) var configuration = ParallelConfiguration()
        private(set) var violations: [Violation] = []
        /// The request without the sizes that are wrong by themselves.
        private var request: ParallelRequest
        private let shape: ModelShape
        private let maxRanks: Int
        /// The size that decides how many ranks there are: what is wrong with their number is wrong with it.
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
            let arranged = ranks.map { arrangeAttention($0) } ?? false
            if let ranks { divideExperts(ranks, arranged: arranged) }
            if arranged { divideDense() }
        }

        /// Whether none of these sizes was found wrong.
        private func sound(_ sizes: Size...) -> Bool { !violations.contains { sizes.contains($0.size) } }

        private mutating func refuse(_ size: Size, _ message: String) {
            violations.append(Violation(size: size, message: message))
        }

        private mutating func checkEachAlone() {
            for size in Size.allCases {
                guard let value = request[size] else { continue }
                if size == .pipeline {
                    if value != 1 { refuse(size, "pipelines are not built yet, so there are not \(value) stages") }
                } else if !(1...maxRanks).contains(value) {
                    refuse(size, "\(value) is not between 1 and \(maxRanks)")
                } else if size == .expert && shape.experts % value != 0 {
                    refuse(size, "\(shape.experts) experts do not divide evenly over \(value) ranks")
                } else if size == .dense && !ModelShape.shares(shape.denseWidth, over: value) {
                    refuse(size, "\(value) ranks cannot share a feed-forward of width \(shape.denseWidth)")
                }
            }
            for violation in violations { request[violation.size] = nil }
        }

        /// The ranks of a stage, or else the fewest that all given sizes divide; `nil` when a wrong size decides.
        private mutating func countRanks() -> Int? {
            guard origin == .expert else { return request.tpSize }
            guard sound(.data, .context) else { return nil }
            let data = request.attnDPSize ?? 1
            let rows = data * (request.attnCPSize ?? 1)
            if rows > maxRanks {
                refuse(.context, "with attn_dp_size \(data) it needs \(rows) ranks, and \(maxRanks) is the most")
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

        /// Returns whether the degrees of attention are known and legal.
        private mutating func arrangeAttention(_ ranks: Int) -> Bool {
            let data = request.attnDPSize ?? 1
            if ranks % data != 0 { refuse(.data, "\(ranks) ranks do not divide evenly into \(data) groups") }
            // Where the groups are wrong, context is judged as if there were one.
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
                        + "\(shape.heads) heads, which do not divide evenly")
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
            let degrees = shape.expertDegrees(ranks: ranks, mayReplicate: configuration.tensor == 1)
            guard let largest = degrees.last else {
                return refuse(
                    origin,
                    "\(ranks) ranks can share neither \(shape.experts) experts nor their width \(shape.expertWidth)")
            }
            let expert = request.epSize ?? largest
            guard degrees.contains(expert) else {
                return refuse(
                    .expert,
                    "it leaves \(ranks / expert) ranks to share each expert, whose width \(shape.expertWidth) cannot be "
                        + "divided so")
            }
            configuration.expert = expert
            // Where the width does not divide, every rank keeps the experts whole.
            let rest = ranks / expert
            configuration.expertTensor = ModelShape.shares(shape.expertWidth, over: rest) ? rest : 1
        }

        private mutating func divideDense() {
            guard sound(.dense) else { return }
            let tensor = configuration.tensor
            if let given = request.moeDenseTPSize, given != 1, given != tensor {
                return refuse(.dense, "\(given) is neither 1 nor the tensor degree of attention, \(tensor)")
            }
            configuration.denseTensor =
                request.moeDenseTPSize ?? (ModelShape.shares(shape.denseWidth, over: tensor) ? tensor : 1)
        }
    }
}

private func greatestCommonDivisor(_ a: Int, _ b: Int) -> Int { b == 0 ? a : greatestCommonDivisor(b, a % b) }
