package import Checkpoints
import Foundation
package import Tensors

/// Rotary position embedding, plain or YaRN, in the old and new spellings of `config.json`.
package struct RotaryConfiguration: Sendable, Equatable {
    /// The number of elements of a head that are rotated.
    package var width: Int
    package var theta: Double
    package var yarn: YaRN?

    /// The parameters of YaRN; the formulas are those of the paper (arXiv:2309.00071) as DeepSeek uses them.
    package struct YaRN: Sendable, Equatable {
        package var factor: Double
        package var originalLength: Double
        package var betaFast: Double
        package var betaSlow: Double
        package var mscale: Double
        package var mscaleAllDimensions: Double
    }

    package init(width: Int, theta: Double, yarn: YaRN? = nil) {
        (self.width, self.theta, self.yarn) = (width, theta, yarn)
    }

    /// Reads `rope_theta` and `rope_scaling`, or the newer `rope_parameters`; either object may hold the base as well.
    ///
    /// - Throws: `CheckpointError` naming the key, what was found and what is legal; also where something is given twice
    ///   and is not the same.
    package init(_ file: ConfigurationValue, width: Int) throws(CheckpointError) {
        let newer = try file.objectIfPresent("rope_parameters")
        let older = try file.objectIfPresent("rope_scaling")
        self = try Self(file, newer ?? older, width: width)
        guard newer != nil, let older else { return }
        var other = try Self(file, older, width: width)
        if !older.contains("rope_theta") { other.theta = theta }
        if other != self {
            throw file.refusal("rope_scaling", "does not say what rope_parameters says", advice: Self.contradiction)
        }
    }

    /// The advice for a `config.json` that says the same thing twice, differently.
    package static let contradiction = "remove the one of both that is not meant: other software may read either"

    private init(
        _ file: ConfigurationValue, _ scaling: ConfigurationValue?, width: Int
    ) throws(CheckpointError) {
        try scaling?.requireNotNull(Self.thetaKey)
        let inner = scaling.flatMap { $0.contains(Self.thetaKey) ? $0 : nil }
        if inner == nil { try file.requireNotNull(Self.thetaKey) }
        let theta = try (inner ?? file).theta(default: 10_000)
        if let inner { try inner.requireTheta(of: file, default: theta) }
        self.init(width: width, theta: theta, yarn: scaling == nil ? nil : try YaRN.ifPresent(scaling!))
    }

    fileprivate static let thetaKey = "rope_theta"

    /// The angle by which each pair of a head's elements rotates per position, in radians.
    package var frequencies: [Float] {
        (0..<width / 2).map { pair in
            let plain = 1 / pow(Float(theta), Float(2 * pair) / Float(width))
            guard let yarn else { return plain }
            let (low, high) = yarn.rampBounds(width: width, theta: theta)
            let ramp = Float(min(max((Double(pair) - low) / (high - low), 0), 1))
            return plain / Float(yarn.factor) * ramp + plain * (1 - ramp)
        }
    }

    /// The factor of cosines and sines.
    package var amplitude: Float {
        yarn.map { Float($0.scale($0.mscale) / $0.scale($0.mscaleAllDimensions)) } ?? 1
    }

    /// The factor of the softmax scale.
    package var softmaxFactor: Float {
        guard let yarn, yarn.mscaleAllDimensions != 0 else { return 1 }
        let factor = Float(yarn.scale(yarn.mscaleAllDimensions))
        return factor * factor
    }

    /// Returns the cosines and sines of each position's angles. Angles are computed in F32, as in the reference
    /// implementation.
    package func angles(of positions: Indices, _ frequencies: [Float], _ scratch: Scratch) -> RotaryAngles {
        let cosine = scratch.hostRows(positions.count, frequencies.count)
        let sine = scratch.hostRows(positions.count, frequencies.count)
        let amplitude = amplitude
        for row in 0..<positions.count {
            for pair in frequencies.indices {
                let angle = Double(Float(positions[row]) * frequencies[pair])
                cosine[row, pair] = Float(cos(angle)) * amplitude
                sine[row, pair] = Float(sin(angle)) * amplitude
            }
        }
        return RotaryAngles(cosine: cosine.view, sine: sine.view)
    }
}

extension ConfigurationValue {
    fileprivate func theta(default base: Double) throws(CheckpointError) -> Double {
        try double(RotaryConfiguration.thetaKey, in: 1.001...1e12, default: base)
    }

    /// Requires that the `rope_theta` of this object, if there is one, is that of the file around it: implementations take
    /// either.
    ///
    /// - Parameter base: the value that is used where the file has none.
    /// - Throws: `CheckpointError` naming both keys.
    package func requireTheta(of file: ConfigurationValue, default base: Double) throws(CheckpointError) {
        let key = RotaryConfiguration.thetaKey
        let (outer, inner) = (try file.theta(default: base), try theta(default: base))
        guard !contains(key) || inner == outer else {
            let isGiven = file.contains(key) && !file.isNull(key)
            throw file.refusal(
                key, "is \(isGiven ? "" : "taken as ")\(outer), but \(path).\(key) is \(inner)",
                advice: RotaryConfiguration.contradiction)
        }
    }
}

extension RotaryConfiguration.YaRN {
    /// Reads the parameters of YaRN if an object has them; other kinds of scaling are refused.
    package static func ifPresent(
        _ scaling: ConfigurationValue, hasAmplitude: Bool = true
    ) throws(CheckpointError) -> Self? {
        let (newer, older) = ("rope_type", "type")
        let kinds = try [newer, older].filter { scaling.contains($0) && !scaling.isNull($0) }
            .map { key throws(CheckpointError) in try scaling.string(key, oneOf: ["default", "yarn"]) }
        if kinds.count == 2, kinds[0] != kinds[1] {
            throw scaling.refusal(
                older, "does not say what \(newer) says", advice: RotaryConfiguration.contradiction)
        }
        // Implementations that want a kind fail, and others ignore the factor.
        if kinds.isEmpty, scaling.contains("factor") {
            throw scaling.refusal(older, "is missing beside factor", advice: "give yarn or default")
        }
        return kinds.first == "yarn" ? try Self(scaling, hasAmplitude: hasAmplitude) : nil
    }

    /// Reads the parameters of YaRN.
    ///
    /// - Parameter hasAmplitude: whether cosines and sines have a factor that follows from the parameters. Without one,
    ///   `attention_factor` may be 1, and `mscale` has no meaning.
    package init(_ scaling: ConfigurationValue, hasAmplitude: Bool = true) throws(CheckpointError) {
        factor = try scaling.double("factor", in: 1e-3...1e6)
        originalLength = try scaling.double("original_max_position_embeddings", in: 1...1e9)
        betaFast = try scaling.double("beta_fast", in: 1e-6...1e6, default: 32)
        betaSlow = try scaling.double("beta_slow", in: 1e-6...1e6, default: 1)
        guard betaFast >= betaSlow else {
            throw scaling.refusal(
                "beta_fast", "is \(betaFast), less than beta_slow \(betaSlow)", advice: "released models have 32 and 1")
        }
        try scaling.requireNotNull("truncate")
        if !hasAmplitude {
            try scaling.requireNotNull("attention_factor")
            _ = try scaling.double("attention_factor", in: 1...1, default: 1)
            (mscale, mscaleAllDimensions) = (0, 0)
            return
        }
        for key in ["attention_factor", "truncate"] where scaling.contains(key) && !scaling.isNull(key) {
            throw scaling.refusal(key, "is given", advice: "released models do not have it; it is not supported")
        }
        mscale = try scaling.double("mscale", in: 0...1e6, default: 1)
        mscaleAllDimensions = try scaling.double("mscale_all_dim", in: 0...1e6, default: 0)
        // DeepSeek's code takes 1 and 0 for what is missing, transformers ignores one without the other.
        let isGiven = scaling.contains("mscale") && !scaling.isNull("mscale")
        guard isGiven && mscale != 0 && mscaleAllDimensions != 0 || mscale == 1 && mscaleAllDimensions == 0 else {
            throw scaling.refusal(
                "mscale", "and mscale_all_dim are not both given, which implementations read differently",
                advice: "give both, as released models do, or neither")
        }
    }

    /// Returns `0.1 · m · ln(factor) + 1`, and 1 for factors up to 1.
    package func scale(_ m: Double) -> Double { factor <= 1 ? 1 : 0.1 * m * log(factor) + 1 }

    /// Returns the pairs of elements between which frequencies change from kept (below `low`) to interpolated (above
    /// `high`).
    package func rampBounds(width: Int, theta: Double) -> (low: Double, high: Double) {
        func correction(_ rotations: Double) -> Double {
            Double(width) * log(originalLength / (rotations * 2 * .pi)) / (2 * log(theta))
        }
        let low = max(correction(betaFast).rounded(.down), 0)
        let high = min(correction(betaSlow).rounded(.up), Double(width - 1))
        return (low, low == high ? high + 0.001 : high)
    }
}

/// The rotary angles of a step's own rows and attended rows.
package struct StepAngles {
    package let own: RotaryAngles
    package let attended: RotaryAngles

    package init(of step: Step, _ angles: (Indices) -> RotaryAngles) {
        own = angles(step.own.positions)
        // The attended rows contain the own rows, so equal counts mean equal rows.
        attended = step.attended.count == step.own.count ? own : angles(step.attended.positions)
    }
}
