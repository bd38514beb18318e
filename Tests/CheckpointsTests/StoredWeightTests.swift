import Checkpoints
import Tensors
import TestSupport
import Testing

private let name = "layers.0.q_a_proj.weight"

/// A file with a weight whose stored numbers are all 1, and its scales.
private struct StoredWeight {
    var shape: [Int]
    var type = StoredType.f8e4m3
    var suffix = "_scale_inv"
    var scaleType = StoredType.f32
    var scaleShape: [Int] = []
    /// The bytes of the scales; `nil` leaves them out.
    var scales: [UInt8]?

    /// Is the byte of the number 1 in the types that are quantized.
    private var one: UInt8 { type == .i8 ? 1 : 0x38 }

    func index(also: (inout SafeTensorsWriter) -> Void = { _ in }) throws -> WeightIndex {
        let directory = try TemporaryDirectory()
        var writer = SafeTensorsWriter()
        if let scales { writer.add(name + suffix, scaleType.rawValue, scaleShape, scales) }
        writer.add(
            name, type.rawValue, shape, [UInt8](repeating: one, count: type.bytes * shape.reduce(1, *)))
        also(&writer)
        try writer.write(to: directory.file("model.safetensors"))
        return try WeightIndex(directory: directory.path)
    }

    func refusal() throws -> CheckpointError {
        let index = try index()
        return try CheckpointsTests.refusal { try index.matrix(name, rows: shape[0], columns: shape[1]) }
    }
}

private func bytes(_ values: [Float]) -> [UInt8] { values.flatMap { SafeTensorsWriter.littleEndian($0.bitPattern) } }

private func shortBytes(_ values: [Float]) -> [UInt8] {
    values.flatMap { SafeTensorsWriter.littleEndian(UInt16($0.bitPattern >> 16)) }
}

@Suite struct `Quantized weights` {
    @Test(arguments: [StoredType.f32, .f8e8m0])
    func `may have scales by the name of DeepSeek-V4`(type: StoredType) throws {
        let scales = type == .f32 ? bytes([0.5, 2]) : [126, 128]
        let directory = try TemporaryDirectory()
        var writer = SafeTensorsWriter()
        writer.add("layers.0.attn.wkv.scale", type.rawValue, [1, 2], scales)
        writer.add("layers.0.attn.wkv.weight", "F8_E4M3", [1, 129], [UInt8](repeating: 0x38, count: 129))
        try writer.write(to: directory.file("model.safetensors"))
        let index = try WeightIndex(directory: directory.path)
        let weight = try index.matrix("layers.0.attn.wkv.weight", rows: 1, columns: 129)
        #expect(weight.elements == [Float](repeating: 0.5, count: 128) + [2])
        withExtendedLifetime(index) {}
    }

    @Test(arguments: [StoredType.f8e4m3, .i8], ["_scale_inv", "_scale"])
    func `have one scale for each block, the last ones partial, or for each row`(
        type: StoredType, suffix: String
    ) throws {
        let examples: [(shape: [Int], scales: [Int], rows: Int, columns: Int)] = [
            ([576, 256], [5, 2], 128, 128), ([128, 128], [1, 1], 128, 128), ([1, 129], [1, 2], 128, 128),
            ([127, 3], [1, 1], 128, 128), ([3, 300], [3], 1, 300), ([130, 5], [130, 1], 1, 5),
        ]
        for (shape, grid, rows, columns) in examples {
            let count = grid.reduce(1, *)
            let scales = (1...count).map { Float($0) / 448 }
            let index = try StoredWeight(
                shape: shape, type: type, suffix: suffix, scaleShape: grid, scales: bytes(scales)
            ).index()
            let weight = try index.matrix(name, rows: shape[0], columns: shape[1])
            #expect(weight.dtype == (type == .i8 ? .int8 : .fp8))
            let across = (shape[1] + columns - 1) / columns
            let expected = (0..<shape[0]).flatMap { r in (0..<shape[1]).map { scales[r / rows * across + $0 / columns] }
            }
            #expect(weight.elements == expected, "\(shape)")
            withExtendedLifetime(index) {}
        }
    }

    @Test(arguments: [[4, 2], [5, 1], [2, 5], [10], [5, 2, 1], [576, 2], [1], [], [576, 1, 1]])
    func `are refused with scales of another shape, with those that are legal`(shape: [Int]) throws {
        let scales = [Float](repeating: 1, count: shape.reduce(1, *))
        let error = try StoredWeight(shape: [576, 256], scaleShape: shape, scales: bytes(scales)).refusal()
        #expect(error.subject == .tensor(name + "_scale_inv"))
        #expect(
            error.problem == "has the shape \(shape), but a weight of [576, 256] in F8_E4M3 needs [5, 2] (a scale per "
                + "128 × 128 block) or [576] (a scale per row) or [576, 1] (a scale per row)")
    }

    @Test(arguments: [0, -0.0, -1, .nan, .infinity, -.infinity] as [Float])
    func `are refused with a scale that is not finite and above zero`(scale: Float) throws {
        let scales = [1, 1, scale, 1]
        for (type, stored) in [(StoredType.f32, bytes(scales)), (.bf16, shortBytes(scales))] {
            let error = try StoredWeight(
                shape: [256, 256], scaleType: type, scaleShape: [2, 2], scales: stored
            ).refusal()
            #expect(error.subject == .tensor(name + "_scale_inv"))
            #expect(error.problem.contains("scale 2 is \(scale)"))
        }
    }

    @Test func `are refused with an E8M0 scale that is no number`() throws {
        let error = try StoredWeight(
            shape: [4, 7], type: .i8, suffix: "_scale", scaleType: .f8e8m0, scaleShape: [4],
            scales: [0, 0xFE, 127, 0xFF]
        ).refusal()
        #expect(error.subject == .tensor(name + "_scale") && error.problem.contains("scale 3 is nan"))
    }

    @Test func `may have BF16 scales`() throws {
        let scales: [Float] = [1, 0.0078125, 0x1.fep127, 0x1p-126, 1.5]
        let index = try StoredWeight(
            shape: [576, 100], scaleType: .bf16, scaleShape: [5, 1], scales: shortBytes(scales)
        ).index()
        let weight = try index.matrix(name, rows: 576, columns: 100)
        #expect(weight.elements == (0..<57_600).map { scales[$0 / 100 / 128] })
        withExtendedLifetime(index) {}
    }

    @Test func `may have E8M0 scales, each byte a power of two`() throws {
        let index = try StoredWeight(
            shape: [255, 2], type: .i8, scaleType: .f8e8m0, scaleShape: [255, 1], scales: Array(0...254)
        ).index()
        let weight = try index.matrix(name, rows: 255, columns: 2)
        #expect(weight.elements == (0..<510).map { Float(sign: .plus, exponent: $0 / 2 - 127, significand: 1) })
        withExtendedLifetime(index) {}
    }

    @Test(arguments: [StoredType.f64, .f16, .i32, .u8])
    func `are refused with scales of another type`(type: StoredType) throws {
        let error = try StoredWeight(
            shape: [128, 128], scaleType: type, scaleShape: [1, 1], scales: [UInt8](repeating: 1, count: type.bytes)
        ).refusal()
        #expect(error.subject == .tensor(name + "_scale_inv"))
        #expect(error.problem == "is \(type.rawValue), but scales must be F32, BF16 or F8_E8M0")
    }

    @Test(arguments: [StoredType.f8e4m3, .i8])
    func `are refused without scales`(type: StoredType) throws {
        let error = try StoredWeight(shape: [128, 128], type: type).refusal()
        #expect(error.subject == .tensor(name))
        #expect(
            error.problem
                == "is \(type.rawValue) but its scales \"\(name)_scale_inv\" or \"\(name)_scale\" or "
                + "\"layers.0.q_a_proj.scale\" are missing")
    }

    @Test func `are refused with scales under two names`() throws {
        let index = try StoredWeight(shape: [2, 2], scaleShape: [2], scales: bytes([1, 1])).index {
            $0.add(name + "_scale", [2], [1, 1])
        }
        let error = try refusal { try index.matrix(name, rows: 2, columns: 2) }
        #expect(error.subject == .tensor(name) && error.problem.contains("two names"))
    }

    @Test(arguments: [StoredType.f32, .bf16, .f16])
    func `are refused in a type that no kernel scales, with the legal combinations`(type: StoredType) throws {
        let error = try StoredWeight(shape: [2, 2], type: type, scaleShape: [2], scales: bytes([1, 1])).refusal()
        #expect(error.subject == .tensor(name))
        #expect(error.problem == "is \(type.rawValue) with the scales \"\(name)_scale_inv\", which no kernel reads")
        for legal in [
            "BF16 with no scales", "F8_E4M3 with a scale per 128 × 128 block or a scale per row",
            "I8 with a scale per row", "I8 or U8 of pairs of FP4 with a scale per 1 × 32 block in F8_E8M0",
        ] {
            #expect(error.advice.contains(legal))
        }
    }

    @Test func `take the memory of their file, and of F32 where they are widened`() throws {
        let stored = try StoredWeight(
            shape: [576, 256], scaleShape: [5, 2], scales: bytes(.init(repeating: 1, count: 10))
        )
        .index()
        #expect(try stored.memoryBytes(ofWeight: name) == 576 * 256 + 10 * 4)
        let widened = try StoredWeight(
            shape: [576, 256], scaleType: .f8e8m0, scaleShape: [5, 2], scales: .init(repeating: 127, count: 10)
        ).index()
        #expect(try widened.memoryBytes(ofWeight: name) == 576 * 256 + 10 * 4)
        #expect(try StoredWeight(shape: [3, 5], type: .f16).index().memoryBytes(ofWeight: name) == 3 * 5 * 4)
        #expect(try StoredWeight(shape: [3, 5], type: .bf16).index().memoryBytes(ofWeight: name) == 3 * 5 * 2)
    }
}

@Suite struct `FP4 weights` {
    private static let name = "layers.3.ffn.experts.7.w1.weight"

    /// Returns a checkpoint with the pairs of a matrix and its scales.
    private static func index(
        _ pairs: (shape: [Int], bytes: [UInt8]), type: StoredType = .i8, suffix: String? = nil,
        scaleType: StoredType = .f8e8m0, scales: (shape: [Int], bytes: [UInt8])?
    ) throws -> WeightIndex {
        let directory = try TemporaryDirectory()
        var writer = SafeTensorsWriter()
        writer.add(name, type.rawValue, pairs.shape, pairs.bytes)
        let scaleName = suffix.map { name + $0 } ?? "layers.3.ffn.experts.7.w1.scale"
        if let scales { writer.add(scaleName, scaleType.rawValue, scales.shape, scales.bytes) }
        try writer.write(to: directory.file("model.safetensors"))
        return try WeightIndex(directory: directory.path)
    }

    private static func refusal(
        rows: Int, columns: Int, type: StoredType = .u8, scaleType: StoredType = .f8e8m0,
        scales: (shape: [Int], bytes: [UInt8])?, asked: (Int, Int)? = nil
    ) throws -> CheckpointError {
        let pairs = ([rows, columns / 2], [UInt8](repeating: 0x22, count: rows * (columns / 2) * type.bytes))
        let index = try index(pairs, type: type, scaleType: scaleType, scales: scales)
        return try CheckpointsTests.refusal {
            try index.matrix(name, rows: asked?.0 ?? rows, columns: asked?.1 ?? columns)
        }
    }

    /// Returns the number that a code of four bits represents.
    private static func e2m1(_ code: UInt8) -> Float {
        (code & 8 == 0 ? 1 : -1) * ([0, 0.5, 1, 1.5, 2, 3, 4, 6] as [Float])[Int(code & 7)]
    }

    @Test(arguments: [StoredType.i8, .u8], [nil, "_scale_inv", "_scale"])
    func `are pairs, the first in the low bits, with a scale for 32 columns`(
        type: StoredType, suffix: String?
    ) throws {
        for (rows, columns) in [(3, 64), (1, 2), (2, 34), (16, 128), (17, 258)] {
            let pairs = (0..<rows * columns / 2).map { UInt8(truncatingIfNeeded: $0 &* 37 &+ $0 >> 3) }
            let across = (columns + 31) / 32
            let scales = (0..<rows * across).map { UInt8(120 + $0 % 13) }
            let index = try Self.index(
                ([rows, columns / 2], pairs), type: type, suffix: suffix, scales: ([rows, across], scales))
            let weight = try index.matrix(Self.name, rows: rows, columns: columns)
            #expect(weight.dtype == .fp4 && weight.rows == rows && weight.columns == columns)
            let expected = (0..<rows * columns).map { place -> Float in
                let (row, column) = (place / columns, place % columns)
                let code = column % 2 == 0 ? pairs[place / 2] & 15 : pairs[place / 2] >> 4
                let exponent = Int(scales[row * across + column / 32]) - 127
                return Self.e2m1(code) * Float(sign: .plus, exponent: exponent, significand: 1)
            }
            #expect(weight.elements == expected, "\(rows) × \(columns)")
            #expect(try index.memoryBytes(ofWeight: Self.name) == rows * columns / 2 + rows * across)
            #expect(index.widenedBytes == 0, "scales are used as stored")
            withExtendedLifetime(index) {}
        }
    }

    @Test func `have scales of every power of two that a byte can name`() throws {
        // Each row is one block: 1 and 6.
        let index = try Self.index(
            ([255, 1], [UInt8](repeating: 0x72, count: 255)), scales: ([255, 1], Array(0...254)))
        let weight = try index.matrix(Self.name, rows: 255, columns: 2)
        #expect(
            weight.elements
                == (0..<510).map { place in
                    (place % 2 == 0 ? 1 : 6) * Float(sign: .plus, exponent: place / 2 - 127, significand: 1)
                })
        withExtendedLifetime(index) {}
    }

    @Test(arguments: [[4, 1], [4, 3], [4], [8], [2, 4], [4, 2, 1], [1, 2], []])
    func `are refused with scales of another shape`(shape: [Int]) throws {
        let scales = (shape, [UInt8](repeating: 127, count: shape.reduce(1, *)))
        let error = try Self.refusal(rows: 4, columns: 64, scales: scales)
        #expect(error.subject == .tensor("layers.3.ffn.experts.7.w1.scale"))
        #expect(
            error.problem
                == "has the shape \(shape), but a weight of [4, 64] in FP4 needs [4, 2] (a scale per 1 × 32 block)")
    }

    @Test(arguments: [StoredType.f32, .bf16, .u8, .f8e4m3])
    func `are refused with scales of another type`(type: StoredType) throws {
        let scales = ([4, 2], [UInt8](repeating: 0x3F, count: 8 * type.bytes))
        let error = try Self.refusal(rows: 4, columns: 64, scaleType: type, scales: scales)
        #expect(error.subject == .tensor("layers.3.ffn.experts.7.w1.scale"))
        #expect(error.problem == "is \(type.rawValue), but the scales of FP4 weights must be F8_E8M0")
    }

    @Test func `are refused with a scale that is NaN, and without scales`() throws {
        let error = try Self.refusal(rows: 4, columns: 64, scales: ([4, 2], [1, 2, 3, 4, 5, 0xFF, 0xFF, 7]))
        #expect(error.subject == .tensor("layers.3.ffn.experts.7.w1.scale"))
        #expect(error.problem.contains("scale 5 is NaN"))
        let missing = try Self.refusal(rows: 4, columns: 64, scales: nil)
        #expect(missing.subject == .tensor(Self.name) && missing.problem.contains("w1.scale\" are missing"))
    }

    @Test(arguments: [(4, 62), (4, 65), (4, 63), (3, 64), (5, 64), (64, 4), (2, 128), (4, 128), (0, 0), (4, 0)])
    func `are refused in another shape than config.json asks for`(rows: Int, columns: Int) throws {
        let scales = ([4, 2], [UInt8](repeating: 127, count: 8))
        let error = try Self.refusal(rows: 4, columns: 64, scales: scales, asked: (rows, columns))
        #expect(error.subject == .tensor(Self.name))
        #expect(error.problem.contains("has shape [4, 32]") && error.problem.contains("[\(rows), \(columns)]"))
    }

    @Test(arguments: [StoredType.i16, .u16, .f8e8m0, .f8e4m3])
    func `are refused in another type`(type: StoredType) throws {
        let error = try Self.refusal(
            rows: 4, columns: 64, type: type, scales: ([4, 2], [UInt8](repeating: 127, count: 8)))
        #expect(error.subject == .tensor(Self.name) && error.problem.contains("has shape [4, 32]"))
    }

    @Test func `are no integers of a matrix of the tensor's own shape`() throws {
        // The same tensor is 4 × 32 integers with a scale per row.
        let index = try Self.index(
            ([4, 32], [UInt8](repeating: 3, count: 128)), suffix: "_scale", scales: ([4, 1], [127, 128, 129, 130]))
        #expect(try index.matrix(Self.name, rows: 4, columns: 32).dtype == .int8)
        #expect(throws: CheckpointError.self) { try index.matrix(Self.name, rows: 4, columns: 64) }
        withExtendedLifetime(index) {}
    }
}

@Suite struct `F16 weights` {
    @Test func `are widened exactly, every number`() throws {
        let all = (0...UInt16.max).flatMap { SafeTensorsWriter.littleEndian($0) }
        let directory = try TemporaryDirectory()
        var writer = SafeTensorsWriter()
        let finite = (0...UInt16.max).filter { Float16(bitPattern: $0).isFinite }
        writer.add("matrix", "F16", [256, 256], all)
        writer.add("vector", "F16", [finite.count], finite.flatMap { SafeTensorsWriter.littleEndian($0) })
        try writer.write(to: directory.file("model.safetensors"))
        let index = try WeightIndex(directory: directory.path)
        let vector = try index.vector("vector", finite.count)
        let numbers = withExtendedLifetime(vector) { vector.view.elements }
        let matrix = try index.matrix("matrix", rows: 256, columns: 256)
        let widened = matrix.elements
        #expect(matrix.dtype == .f32 && finite.count == 65_536 - 2 * 1024)
        #expect(numbers.map(\.bitPattern) == finite.map { widened[Int($0)].bitPattern })
        for (bits, number) in widened.enumerated() {
            let expected = Float(Float16(bitPattern: UInt16(bits)))
            #expect(number.bitPattern == expected.bitPattern || number.isNaN && expected.isNaN, "\(bits)")
        }
        withExtendedLifetime(index) {}
    }

    @Test func `are widened once, however often they are used`() throws {
        let index = try StoredWeight(shape: [3, 5], type: .f16).index()
        for _ in 0..<2 {
            _ = try index.matrix(name, rows: 3, columns: 5)
            #expect(index.widenedBytes == 3 * 5 * 4)
        }
    }
}

@Suite struct `Tied matrices` {
    private func index(_ copy: (type: StoredType, shape: [Int], bytes: [UInt8])?) throws -> WeightIndex {
        let directory = try TemporaryDirectory()
        var writer = SafeTensorsWriter()
        writer.add("embed", "BF16", [2, 2], [1, 2, 3, 4, 5, 6, 7, 8])
        if let copy { writer.add("head", copy.type.rawValue, copy.shape, copy.bytes) }
        try writer.write(to: directory.file("model.safetensors"))
        return try WeightIndex(directory: directory.path)
    }

    @Test func `may be stored once, or twice alike`() throws {
        try index(nil).requireTied("head", to: "embed")
        try index((.bf16, [2, 2], [1, 2, 3, 4, 5, 6, 7, 8])).requireTied("head", to: "embed")
    }

    @Test func `are refused with other numbers, shapes or types`() throws {
        for copy in [
            (StoredType.bf16, [2, 2], [1, 2, 3, 4, 5, 6, 7, 9]), (.bf16, [4, 1], [1, 2, 3, 4, 5, 6, 7, 8]),
            (.f16, [2, 2], [1, 2, 3, 4, 5, 6, 7, 8]), (.f32, [2, 1], [1, 2, 3, 4, 5, 6, 7, 8]),
        ] as [(StoredType, [Int], [UInt8])] {
            let index = try index(copy)
            let error = try refusal { try index.requireTied("head", to: "embed") }
            #expect(error.subject == .tensor("head") && error.description.contains("tie_word_embeddings"))
        }
    }
}

@Suite struct `A quantization_config` {
    @Test(arguments: [
        """
        {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "scale_fmt": "ue8m0",
         "weight_block_size": [128, 128]}
        """,
        #"{"quant_method": "w8a8_int8"}"#, #"{"quant_method": "int8"}"#, #"{"quant_method": "w8a8_fp8"}"#,
        #"{"quant_method": "blockwise_int8", "weight_block_size": [128, 128]}"#,
    ])
    func `may describe what kernels read`(text: String) throws {
        try QuantizationConfiguration.validate(configuration(text))
    }

    @Test(arguments: [
        (#"{"quant_method":"fp8","weight_block_size":[64,128]}"#, "weight_block_size", "is [64, 128], which no kernel"),
        (#"{"quant_method":"blockwise_int8","weight_block_size":[1,32]}"#, "weight_block_size", "is [1, 32], which"),
        (#"{"quant_method":"fp8","weight_block_size":[128]}"#, "weight_block_size", "is an array of 1"),
        (#"{"quant_method":"fp8","weight_block_size":[0,128]}"#, "weight_block_size[0]", "is 0 where"),
        (#"{"quant_method":"fp8"}"#, "weight_block_size", "is missing"),
        (#"{"quant_method":"awq","weight_block_size":[128,128]}"#, "quant_method", #"is "awq" where one of "fp8""#),
        (#"{"quant_method":"fp8","fmt":"e5m2","weight_block_size":[128,128]}"#, "fmt", #"is "e5m2""#),
    ])
    func `is refused when it describes something else`(text: String, key: String, problem: String) throws {
        let error = try refusal { try QuantizationConfiguration.validate(configuration(text)) }
        #expect(error.subject == .key(key))
        #expect(error.problem.contains(problem))
    }
}
