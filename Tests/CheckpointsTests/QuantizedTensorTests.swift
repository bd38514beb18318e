import Checkpoints
import TestSupport
import Testing

private let name = "layers.0.q_a_proj.weight"

/// An index over one file with a weight of `shape` and, unless they are nil, its scales.
private func weightIndex(
    _ shape: [Int], type: String = "F8_E4M3", suffix: String = "_scale_inv", scaleType: String = "F32",
    scaleShape: [Int], scales: [Float]?
) throws -> WeightIndex {
    let directory = try TemporaryDirectory()
    var writer = SafeTensorsWriter()
    if let scales, scaleType == "F32" { writer.add(name + suffix, scaleShape, scales) }
    if scaleType != "F32" {
        let bytes = StoredType(rawValue: scaleType)!.bytes * scaleShape.reduce(1, *)
        writer.add(name + suffix, scaleType, scaleShape, [UInt8](repeating: 0x3F, count: bytes))
    }
    let size = StoredType(rawValue: type)!.bytes
    writer.add(name, type, shape, [UInt8](repeating: 0x38, count: size * shape.reduce(1, *)))
    try writer.write(to: directory.file("model.safetensors"))
    return try WeightIndex(directory: directory.path)
}

@Suite struct `FP8 blocks` {
    @Test(arguments: [([576, 256], [5, 2]), ([128, 128], [1, 1]), ([1, 129], [1, 2]), ([127, 1], [1, 1])])
    func `pair with one scale for each, the last ones partial`(shape: [Int], blocks: [Int]) throws {
        let scales = (1...blocks[0] * blocks[1]).map { Float($0) / 448 }
        let index = try weightIndex(shape, scaleShape: blocks, scales: scales)
        let weight = try index.quantizedTensor(named: name)
        #expect(weight.scheme == .fp8Blocks)
        #expect([weight.rows, weight.columns] == shape)
        #expect(weight.scales.shape == blocks)
        #expect(unsafe weight.scales.bytes.withMemoryRebound(to: Float.self) { unsafe Array($0) } == scales)
    }

    @Test(arguments: [[4, 2], [5, 1], [2, 5], [10], [5, 2, 1], [576, 2]])
    func `are refused with scales of another shape`(blocks: [Int]) throws {
        let scales = [Float](repeating: 1, count: blocks.reduce(1, *))
        let index = try weightIndex([576, 256], scaleShape: blocks, scales: scales)
        let error = try refusal { try index.quantizedTensor(named: name) }
        #expect(error.subject == .tensor(name + "_scale_inv"))
        #expect(error.problem == "has the shape \(blocks), but a weight of [576, 256] needs [5, 2]")
    }

    @Test(arguments: [0, -0.0, -1, .nan, .infinity, -.infinity] as [Float])
    func `are refused with a scale that is not finite and above zero`(scale: Float) throws {
        let index = try weightIndex([256, 256], scaleShape: [2, 2], scales: [1, 1, scale, 1])
        let error = try refusal { try index.quantizedTensor(named: name) }
        #expect(error.subject == .tensor(name + "_scale_inv"))
        #expect(error.problem.contains("scale 2 is \(scale)"))
    }

    @Test func `are refused without scales`() throws {
        let index = try weightIndex([128, 128], scaleShape: [], scales: nil)
        let error = try refusal { try index.quantizedTensor(named: name) }
        #expect(error.subject == .tensor(name))
        #expect(error.problem == #"is F8_E4M3 but its scales "\#(name)_scale_inv" are missing"#)
    }

    @Test(arguments: ["BF16", "F8_E8M0", "F64"])
    func `are refused with scales of another type`(type: String) throws {
        let index = try weightIndex([128, 128], scaleType: type, scaleShape: [1, 1], scales: nil)
        let error = try refusal { try index.quantizedTensor(named: name) }
        #expect(error.subject == .tensor(name + "_scale_inv"))
        #expect(error.problem == "is \(type), but scales must be F32")
    }

    @Test func `are refused unless they are a matrix`() throws {
        let index = try weightIndex([128], scaleShape: [1, 1], scales: [1])
        #expect(try refusal { try index.quantizedTensor(named: name) }.problem.contains("only matrices"))
    }

    @Test func `are not looked for in a weight of another type`() throws {
        let index = try weightIndex([2, 2], type: "BF16", scaleShape: [], scales: nil)
        let error = try refusal { try index.quantizedTensor(named: name) }
        #expect(error.problem == "is stored as BF16, not quantized as F8_E4M3 or I8")
    }

    @Test func `are what the released configuration describes`() throws {
        try FP8Blocks.validate(
            configuration(
                """
                {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "scale_fmt": "ue8m0",
                 "weight_block_size": [128, 128]}
                """))
    }

    @Test(arguments: [
        (#"{"quant_method":"fp8","weight_block_size":[64,128]}"#, "weight_block_size", "is [64, 128], but only"),
        (#"{"quant_method":"fp8","weight_block_size":[128]}"#, "weight_block_size", "is an array of 1"),
        (#"{"quant_method":"fp8","weight_block_size":[0,128]}"#, "weight_block_size[0]", "is 0 where"),
        (#"{"quant_method":"fp8"}"#, "weight_block_size", "is missing"),
        (#"{"quant_method":"awq","weight_block_size":[128,128]}"#, "quant_method", #"is "awq" where one of "fp8""#),
        (#"{"quant_method":"fp8","fmt":"e5m2","weight_block_size":[128,128]}"#, "fmt", #"is "e5m2""#),
    ])
    func `are refused when the configuration describes something else`(
        text: String, key: String, problem: String
    ) throws {
        let error = try refusal { try FP8Blocks.validate(configuration(text)) }
        #expect(error.subject == .key(key))
        #expect(error.problem.contains(problem))
    }
}

@Suite struct `INT8 channels` {
    @Test(arguments: [[3], [3, 1]])
    func `pair with one scale for each row`(shape: [Int]) throws {
        let index = try weightIndex([3, 5], type: "I8", suffix: "_scale", scaleShape: shape, scales: [1, 2, 3])
        let weight = try index.quantizedTensor(named: name)
        #expect(weight.scheme == .int8Channels)
        #expect([weight.rows, weight.columns] == [3, 5])
        #expect(weight.scales.shape == shape)
    }

    @Test(arguments: [[5], [1, 3], [3, 1, 1]])
    func `are refused with scales of another shape`(shape: [Int]) throws {
        let scales = [Float](repeating: 1, count: shape.reduce(1, *))
        let index = try weightIndex([3, 5], type: "I8", suffix: "_scale", scaleShape: shape, scales: scales)
        let error = try refusal { try index.quantizedTensor(named: name) }
        #expect(error.problem == "has the shape \(shape), but a weight of [3, 5] needs [3] or [3, 1]")
    }

    @Test func `are refused with a scale of zero, or without scales`() throws {
        let zero = try weightIndex([2, 2], type: "I8", suffix: "_scale", scaleShape: [2], scales: [1, 0])
        #expect(try refusal { try zero.quantizedTensor(named: name) }.problem.contains("scale 1 is 0.0"))
        let none = try weightIndex([2, 2], type: "I8", suffix: "_scale", scaleShape: [2], scales: nil)
        #expect(try refusal { try none.quantizedTensor(named: name) }.problem.contains("are missing"))
    }
}
