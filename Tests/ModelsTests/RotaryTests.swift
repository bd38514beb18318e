import Checkpoints
import Modeling
import Tensors
import TestSupport
import Testing

private let yarn = """
    "beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 4096
    """

private let withoutMscale = #""type": "yarn", "factor": 40, "original_max_position_embeddings": 4096"#

private func rotary(_ text: String, width: Int = 64) throws -> RotaryConfiguration {
    try RotaryConfiguration(ModelConfigurationFile.parse(Array(text.utf8), file: "config.json"), width: width)
}

@Suite struct `Rotary positions` {
    static func released() throws -> RotaryConfiguration {
        try rotary(#"{"rope_theta": 10000, "rope_scaling": {"type": "yarn", \#(yarn)}}"#)
    }

    /// The values follow YaRN's formulas in double precision: 10 is the last pair kept, 23 the first that is wholly
    /// interpolated.
    @Test(arguments: [(10, 0.05623413252), (11, 0.03900692657), (20, 7.905694150e-4), (31, 3.333803581e-6)])
    func `turn as YaRN says`(pair: Int, frequency: Double) throws {
        let frequencies = try Self.released().frequencies
        #expect(frequencies.count == 32)
        #expect(abs(Double(frequencies[pair]) / frequency - 1) < 1e-6)
    }

    @Test func `scale the softmax and leave the amplitude`() throws {
        let rotary = try Self.released()
        #expect(abs(rotary.softmaxFactor - 1.8738542071) < 1e-6)
        #expect(rotary.amplitude == 1)
    }

    @Test func `scale the amplitude where mscale_all_dim is not given`() throws {
        let text = """
            {"rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096}}
            """
        let rotary = try rotary(text)
        #expect(rotary.softmaxFactor == 1)
        // The amplitude is 0.1 · ln 40 + 1.
        #expect(abs(rotary.amplitude - 1.3688879454) < 1e-6)
    }

    @Test(arguments: [
        #"{"rope_theta": 10000, "rope_scaling": {"rope_type": "yarn", \#(yarn)}}"#,
        #"{"rope_parameters": {"rope_theta": 10000, "rope_type": "yarn", \#(yarn)}}"#,
        #"{"rope_theta": 10000.0, "rope_parameters": {"rope_type": "yarn", \#(yarn)}}"#,
        #"{"rope_theta": 1e4, "rope_parameters": {"rope_theta": 10000, "type": "yarn", \#(yarn)}}"#,
        #"{"rope_scaling": {"type": "yarn", \#(yarn)}}"#,
        #"{"rope_theta": null, "rope_scaling": {"rope_theta": 1e4, "type": "yarn", \#(yarn)}}"#,
        #"{"rope_scaling": {"type": "yarn", \#(yarn)}, "rope_parameters": {"rope_type": "yarn", \#(yarn)}}"#,
        #"{"rope_scaling": {"rope_type": null, "type": "yarn", \#(yarn)}}"#,
        #"{"rope_scaling": {"rope_type": "yarn", "type": null, \#(yarn)}}"#,
        #"{"rope_scaling": {"rope_type": "yarn", "type": "yarn", \#(yarn)}}"#,
        #"{"rope_scaling": {"type": "yarn", \#(yarn)}, "rope_parameters": {"rope_theta": 1e4, "type": "yarn", \#(yarn)}}"#,
    ])
    func `mean the same in every spelling`(text: String) throws {
        #expect(try rotary(text) == Self.released())
    }

    @Test(arguments: [
        "{}", #"{"rope_scaling": null, "rope_parameters": null}"#, #"{"rope_scaling": {"type": "default"}}"#,
        #"{"rope_theta": 10000, "rope_parameters": {"rope_type": "default"}}"#,
    ])
    func `are plain where nothing says otherwise`(text: String) throws {
        let rotary = try rotary(text)
        #expect(rotary.yarn == nil && rotary.theta == 10_000)
        #expect(rotary.amplitude == 1 && rotary.softmaxFactor == 1)
        // The frequencies are 10000 ^ (-2i / 64).
        for (pair, frequency) in [(0, 1), (16, 0.01), (31, 1.333521432e-4)] {
            #expect(abs(Double(rotary.frequencies[pair]) / frequency - 1) < 1e-6)
        }
    }

    @Test func `take theta from the file`() throws {
        let frequency = try rotary(#"{"rope_theta": 1000000}"#).frequencies[16]
        #expect(abs(frequency / 0.001 - 1) < 1e-6)
    }

    @Test func `are finite at the edges of what is legal`() throws {
        for theta in ["1.001", "1e12"] {
            for factor in ["1e-3", "1", "1e6"] {
                for (fast, slow) in [("1e6", "1e-6"), ("1", "1"), ("1e-6", "1e-6"), ("1e6", "1e6")] {
                    let text = """
                        {"rope_theta": \(theta), "rope_scaling": {"type": "yarn", "factor": \(factor),
                         "original_max_position_embeddings": 1, "beta_fast": \(fast), "beta_slow": \(slow)}}
                        """
                    let rotary = try rotary(text)
                    #expect(rotary.frequencies.allSatisfy { $0.isFinite && $0 > 0 }, "\(text)")
                    #expect(rotary.amplitude.isFinite && rotary.softmaxFactor.isFinite, "\(text)")
                }
            }
        }
    }

    @Test func `become cosines and sines`() throws {
        let scratch = Scratch(bytes: 1 << 20)
        let positions = scratch.indices(3)
        positions.copy([0, 1, 100_000] as [Int32])
        let rotary = try Self.released()
        let angles = rotary.angles(of: positions, rotary.frequencies, scratch)
        #expect(angles.cosine.rows(0..<1).elements == [Float](repeating: 1, count: 32))
        #expect(angles.sine.rows(0..<1).elements == [Float](repeating: 0, count: 32))
        // The values are cos 1 and sin 1, cos and sin of 100,000 radians, and those of the slowest pair at 100,000.
        let expected: [(Int, Int, Double, Double)] = [
            (1, 0, 0.5403023059, 0.8414709848), (2, 0, -0.9993608074, 0.0357487980),
            (2, 31, 0.9449415590, 0.3272391328),
        ]
        for (row, pair, cosine, sine) in expected {
            #expect(abs(Double(angles.cosine[row, pair]) - cosine) < 1e-6, "row \(row) pair \(pair)")
            #expect(abs(Double(angles.sine[row, pair]) - sine) < 1e-6, "row \(row) pair \(pair)")
        }
        withExtendedLifetime(scratch) {}
    }

    @Test(arguments: [
        (#"{"rope_theta": 1}"#, "rope_theta"), (#"{"rope_theta": 0}"#, "rope_theta"),
        (#"{"rope_theta": -10000}"#, "rope_theta"), (#"{"rope_theta": 1e13}"#, "rope_theta"),
        (#"{"rope_theta": "10000"}"#, "rope_theta"), (#"{"rope_theta": 1e400}"#, ""),
        (#"{"rope_parameters": {"rope_theta": 1}}"#, "rope_parameters.rope_theta"),
        (#"{"rope_parameters": {"rope_type": "yarn"}}"#, "rope_parameters.factor"),
        (#"{"rope_scaling": "yarn"}"#, "rope_scaling"), (#"{"rope_scaling": []}"#, "rope_scaling"),
        (#"{"rope_scaling": {"type": "linear", "factor": 2}}"#, "rope_scaling.type"),
        (#"{"rope_scaling": {"rope_type": "llama3", "type": "yarn"}}"#, "rope_scaling.rope_type"),
        (#"{"rope_scaling": {"rope_type": "default", "type": "yarn", \#(yarn)}}"#, "rope_scaling.type"),
        (#"{"rope_scaling": {"rope_type": "yarn", "type": "default", \#(yarn)}}"#, "rope_scaling.type"),
        (#"{"rope_scaling": {\#(yarn)}}"#, "rope_scaling.type"),
        (#"{"rope_scaling": {"rope_type": null, \#(yarn)}}"#, "rope_scaling.type"),
        (#"{"rope_scaling": {"type": "yarn", \#(yarn)}, "rope_parameters": {"rope_type": "default"}}"#, "rope_scaling"),
        (#"{"rope_scaling": {"rope_theta": 7}, "rope_parameters": {"rope_theta": 8}}"#, "rope_scaling"),
        (#"{"rope_theta": null}"#, "rope_theta"), (#"{"rope_theta": null, "rope_scaling": {}}"#, "rope_theta"),
        (#"{"rope_theta": 5, "rope_parameters": {"rope_theta": null}}"#, "rope_parameters.rope_theta"),
        (#"{"rope_scaling": {\#(withoutMscale), "mscale": 0.707}}"#, "rope_scaling.mscale"),
        (#"{"rope_scaling": {\#(withoutMscale), "mscale": 0.707, "mscale_all_dim": 0}}"#, "rope_scaling.mscale"),
        (#"{"rope_scaling": {\#(withoutMscale), "mscale": 0, "mscale_all_dim": 1}}"#, "rope_scaling.mscale"),
        (#"{"rope_scaling": {\#(withoutMscale), "mscale_all_dim": 1}}"#, "rope_scaling.mscale"),
    ])
    func `are refused when the file is wrong`(text: String, key: String) throws {
        let error = try refusal { try rotary(text) }
        #expect(error.subject == (key.isEmpty ? .file : .key(key)))
        #expect(error.file == "config.json" && !error.advice.isEmpty)
    }

    @Test(arguments: ["rope_parameters", "rope_scaling"])
    func `are refused with two bases, naming both`(object: String) throws {
        let error = try refusal { try rotary(#"{"rope_theta": 5, "\#(object)": {"rope_theta": 1e4}}"#) }
        #expect(error.subject == .key("rope_theta") && !error.advice.isEmpty)
        #expect(error.problem == "is 5.0, but \(object).rope_theta is 10000.0")
    }

    @Test(arguments: [
        ("factor", "0"), ("factor", "-40"), ("factor", "1e7"), ("factor", "null"), ("factor", "\"40\""),
        ("original_max_position_embeddings", "0"), ("original_max_position_embeddings", "true"),
        ("beta_fast", "0"), ("beta_fast", "0.5"), ("beta_slow", "33"), ("beta_slow", "-1"), ("mscale", "-1"),
        ("mscale", "{}"), ("mscale_all_dim", "-1"), ("mscale_all_dim", "1e7"), ("attention_factor", "1"),
        ("truncate", "false"), ("truncate", "null"),
    ])
    func `are refused with this in YaRN's place`(key: String, value: String) throws {
        var keys = [
            "type": "\"yarn\"", "factor": "40", "original_max_position_embeddings": "4096", "beta_fast": "32",
            "beta_slow": "1", "mscale": "1", "mscale_all_dim": "1",
        ]
        keys[key] = value
        let members = keys.map { "\"\($0)\": \($1)" }.joined(separator: ", ")
        let error = try refusal { try rotary(#"{"rope_scaling": {\#(members)}}"#) }
        // The two betas are compared; the message is about the first and names both.
        let named = key == "beta_slow" && value == "33" ? "beta_fast" : key
        #expect(error.subject == .key("rope_scaling." + named))
        #expect(error.description.contains(key))
    }
}
