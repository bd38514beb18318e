/// The sizes a user gave, by the names users of SGLang know; `nil` follows from the others.
///
/// `tpSize` counts the ranks of one stage, not the attention's tensor degree:
/// `tpSize = attnDPSize × attnCPSize × (attention's tensor degree) = epSize × (experts' tensor degree)`.
package struct ParallelRequest: Sendable, Equatable {
    package var tpSize: Int?
    package var attnCPSize: Int?
    package var attnDPSize: Int?
    /// By default the largest that gives the bits of one rank, or else the largest. Where none gives them although
    /// attention does, every rank keeps all experts.
    package var epSize: Int?
    package var ppSize: Int?
    /// Ranks among which a request's keys are divided, of those that share a data group.
    package var dcpSize: Int?
    /// Consecutive tokens whose keys one of them owns.
    package var dcpInterleave: Int?
    /// Keys a request has, at least, before its queries go to them.
    package var dcpMinKeys: Int?
    /// 1, or the attention's tensor degree; by default the latter where the widths divide.
    package var moeDenseTPSize: Int?
    /// Layers of each stage, by default as even as can be; as many numbers as there are stages.
    package var ppLayerPartition: [Int]?
    /// Whether context takes all the ranks that data leaves when `attnCPSize` is not given.
    package var contextFillsRanks = false
    package var strategy: PartitionStrategy?
    package var exchange: ExpertExchangeKind?
    /// What was wrong already in how the sizes were written; `resolve` reports it with what it finds itself.
    package var problems: [Problem] = []

    package init() {}

    /// A number a user can give. The raw value is its name in messages.
    package enum Size: String, Sendable, CaseIterable {
        case ranks = "tp_size"
        case data = "attn_dp_size"
        case context = "attn_cp_size"
        case expert = "ep_size"
        case dense = "moe_dense_tp_size"
        case pipeline = "pp_size"
        case kvSharding = "dcp_size"

        fileprivate var path: WritableKeyPath<ParallelRequest, Int?> {
            switch self {
            case .ranks: \.tpSize
            case .data: \.attnDPSize
            case .context: \.attnCPSize
            case .expert: \.epSize
            case .dense: \.moeDenseTPSize
            case .pipeline: \.ppSize
            case .kvSharding: \.dcpSize
            }
        }
    }

    package subscript(size: Size) -> Int? {
        get { self[keyPath: size.path] }
        set { self[keyPath: size.path] = newValue }
    }

    /// One thing that is wrong, and what to write instead.
    package struct Problem: Sendable, Equatable, CustomStringConvertible {
        /// What was given, such as `tp_size`.
        package let parameter: String
        package let message: String
        /// Legal values while everything else that is right stays as it is, ascending; empty where no number helps.
        package let legal: [Int]
        /// The legal value next to the one given, the smaller of two.
        package let nearestLegal: Int?
        /// A legal partition to write instead, where one was given.
        package let nearestPartition: [Int]?

        package init(
            parameter: String, message: String, given: Int = 0, legal: [Int] = [], nearestPartition: [Int]? = nil
        ) {
            self.parameter = parameter
            self.message = message
            self.legal = legal
            self.nearestPartition = nearestPartition
            nearestLegal = legal.min { ($0.distance(from: given), $0) < ($1.distance(from: given), $1) }
        }

        package var description: String {
            let advice =
                switch (nearestLegal, legal.count) {
                case (nil, _):
                    nearestPartition.map { "; the nearest legal partition is \($0.commaList)" } ?? ""
                case (let value?, 1): "; the only legal value is \(value)"
                case (let value?, ...12): "; the nearest legal value is \(value) of \(legal.englishList)"
                case (let value?, _): "; the nearest legal value is \(value)"
                }
            return "\(parameter): \(message)\(advice)"
        }
    }

    /// Everything that is wrong with a request.
    package struct Refusal: Error, Equatable, CustomStringConvertible {
        package let problems: [Problem]
        package var description: String { problems.map(\.description).joined(separator: "\n") }
    }

    /// Every degree, for a model of this shape.
    ///
    /// A size that can only be judged by another that is itself wrong is judged once that one is right.
    ///
    /// - Parameter maxRanks: how many ranks there may be, those of all stages together.
    /// - Throws: all problems at once.
    package func resolve(for shape: ModelShape, maxRanks: Int = 64) throws(Refusal) -> ParallelConfiguration {
        precondition(maxRanks > 0)
        let derivation = Derivation(self, shape, maxRanks: maxRanks)
        var found = problems + kvShardingProblems
        // A size is repaired next to what is right: another wrong one says nothing about what was meant.
        var right = self
        for violation in derivation.violations { right[violation.size] = nil }
        if derivation.partitionFault != nil { right.ppLayerPartition = nil }
        for violation in derivation.violations {
            found.append(
                Problem(
                    parameter: violation.size.rawValue, message: violation.message, given: self[violation.size] ?? 0,
                    legal: legalValues(of: violation.size, besides: right, shape, maxRanks: maxRanks)))
        }
        if let fault = derivation.partitionFault {
            found.append(
                Problem(
                    parameter: "pp_layer_partition", message: fault.message, nearestPartition: fault.nearestLegal))
        }
        guard found.isEmpty else { throw Refusal(problems: found) }
        return derivation.configuration
    }

    private var kvShardingProblems: [Problem] {
        let ranges = [("dcp_interleave", dcpInterleave, 1...65_536), ("dcp_min_keys", dcpMinKeys, 0...16_777_216)]
        return ranges.compactMap { name, value, legal in
            guard let value, !legal.contains(value) else { return nil }
            return Problem(
                parameter: name, message: "\(value) is not between \(legal.lowerBound) and \(legal.upperBound)",
                given: value, legal: [value < legal.lowerBound ? legal.lowerBound : legal.upperBound])
        }
    }

    /// The values that repair a size here, of those the ones that go best with what is right.
    private func legalValues(
        of size: Size, besides right: ParallelRequest, _ shape: ModelShape, maxRanks: Int
    ) -> [Int] {
        func derivation(_ request: ParallelRequest, _ value: Int) -> Derivation {
            var request = request
            request[size] = value
            return Derivation(request, shape, maxRanks: maxRanks)
        }
        let repairs = (1...maxRanks).filter { value in
            !derivation(self, value).violations.contains { $0.size == size }
        }
        let others = repairs.map { derivation(right, $0).faults }
        return zip(repairs, others).filter { $0.1 == others.min() }.map(\.0)
    }
}

extension Int {
    /// How far apart two numbers are, also the extreme ones.
    fileprivate func distance(from other: Int) -> UInt {
        self < other ? UInt(bitPattern: other &- self) : UInt(bitPattern: self &- other)
    }
}

extension [Int] {
    /// `31,30`, as a partition is written.
    var commaList: String { map(String.init).joined(separator: ",") }

    /// `1, 2 and 4`.
    fileprivate var englishList: String {
        dropLast().map(String.init).joined(separator: ", ") + " and \(self[count - 1])"
    }
}
