/// Holds the sizes that a user gave, under SGLang's names; a size that is `nil` follows from the others.
///
/// `tpSize` counts the ranks of one stage, not the attention's tensor degree:
/// `tpSize = attnDPSize × attnCPSize × (attention's tensor degree) = epSize × (experts' tensor degree)`.
package struct ParallelRequest: Sendable, Equatable {
    package var tpSize: Int?
    package var attnCPSize: Int?
    package var attnDPSize: Int?
    /// By default it is the largest degree that is bitwise equal to one rank, or else the largest. If none is bitwise
    /// equal although attention is, every rank keeps all experts.
    package var epSize: Int?
    package var ppSize: Int?
    /// The number of ranks of a data group over which a request's keys are sharded.
    package var dcpSize: Int?
    /// The number of consecutive tokens whose keys one of those ranks owns at a time.
    package var dcpInterleave: Int?
    /// The smallest number of keys with which a request uses query-gather attention.
    package var dcpMinKeys: Int?
    /// It is 1, or attention's tensor degree; by default the latter if it divides the widths.
    package var moeDenseTPSize: Int?
    /// The layers of each stage, by default as even as possible; there is one number per stage.
    package var ppLayerPartition: [Int]?
    /// If true and `attnCPSize` is not given, context takes all the ranks that data leaves.
    package var contextFillsRanks = false
    package var strategy: PartitionStrategy?
    package var exchange: ExpertExchangeKind?
    /// The most ranks of a job, all stages together.
    package static let maxRanks = 64
    /// Problems of how the sizes were written; `resolve` reports them with those that it finds itself.
    package var problems: [Problem] = []

    package init() {}

    /// Names a number that a user can give. The raw value is its name in messages.
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

    /// Reports one fault, and what to write instead.
    package struct Problem: Sendable, Equatable, CustomStringConvertible {
        /// The name of the parameter, such as `tp_size`.
        package let parameter: String
        package let message: String
        /// The legal values if all other correct sizes stay unchanged, ascending; it is empty if no number helps.
        package let legal: [Int]
        /// The legal value nearest to the given one, the smaller of two.
        package let nearestLegal: Int?
        /// A legal partition to write instead, if one was given.
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

    /// Reports everything that is wrong with a request.
    package struct Refusal: Error, Equatable, CustomStringConvertible {
        package let problems: [Problem]
        package var description: String { problems.map(\.description).joined(separator: "\n") }
    }

    /// Derives every degree for a model of this shape.
    ///
    /// A size whose legality depends on another wrong size is judged once that one is corrected.
    ///
    /// - Parameter maxRanks: the largest number of ranks of all stages together.
    /// - Throws: all problems at once.
    package func resolve(for shape: ModelShape, maxRanks: Int = Self.maxRanks) throws(Refusal) -> ParallelConfiguration
    {
        precondition(maxRanks > 0)
        let derivation = Derivation(self, shape, maxRanks: maxRanks)
        var found = problems + kvShardingProblems
        // Legal values are sought with the correct sizes only: another wrong size does not show what was intended.
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

    /// Returns the values that repair a size here, and of those the ones that fit the correct sizes best.
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
    /// Returns the distance of two numbers, even of the extreme ones.
    fileprivate func distance(from other: Int) -> UInt {
        self < other ? UInt(bitPattern: other &- self) : UInt(bitPattern: self &- other)
    }
}

extension [Int] {
    /// Writes a partition, such as `31,30`.
    var commaList: String { map(String.init).joined(separator: ",") }

    /// Writes a list, such as `1, 2 and 4`.
    fileprivate var englishList: String {
        dropLast().map(String.init).joined(separator: ", ") + " and \(self[count - 1])"
    }
}
