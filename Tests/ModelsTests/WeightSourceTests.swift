import Checkpoints
import Foundation
import Modeling
import Models
import Tensors
import TestSupport
import Testing

private let rows = 200
private let columns = 300

/// Returns the index of a model directory with one file of these tensors. The directory is removed before this returns;
/// the open file keeps its contents.
private func index(_ writer: SafeTensorsWriter) throws -> WeightIndex {
    let directory = NSTemporaryDirectory() + "braid-weights-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    try writer.write(to: directory + "/model.safetensors")
    return try WeightIndex(directory: directory)
}

/// Returns bytes that look random and are the same in every run.
private func bytes(_ count: Int, seed: UInt32) -> [UInt8] {
    var state = seed
    return (0..<count).map { _ in
        state = state &* 1_664_525 &+ 1_013_904_223
        return UInt8(state >> 24)
    }
}

/// Returns the value of an E4M3 byte by the definition of the format.
private func e4m3(_ byte: UInt8) -> Float {
    let exponent = Int(byte >> 3 & 15)
    let mantissa = Float(byte & 7) / 8
    return Float(
        sign: byte & 0x80 == 0 ? .plus : .minus, exponent: max(exponent, 1) - 7,
        significand: exponent == 0 ? mantissa : 1 + mantissa)
}

private func numbers(_ source: WeightSource, _ name: String, _ count: Int, dummy: Float = 9) throws -> [Float] {
    let vector = try source.vector(name, count, dummy: dummy)
    return withExtendedLifetime(vector) { vector.view.elements }
}

@Suite struct `A checkpoint's weights` {
    /// Returns a stored matrix "w" with its scales, and an F32 matrix "twin" of the values it represents.
    static func twins(_ type: StoredType) throws -> WeightIndex {
        var writer = SafeTensorsWriter()
        var stored = bytes(rows * columns * type.bytes, seed: 5)
        var twin: [Float] = []
        switch type {
        case .i8:
            let scales = bytes(rows, seed: 6).map { (Float($0) + 1) / 1000 }
            writer.add("w_scale", [rows], scales)
            twin = stored.enumerated().map { Float(Int8(bitPattern: $1)) * scales[$0 / columns] }
        case .f8e4m3:
            // Scales belong to blocks of 128 × 128; the last block of each row and column is not full.
            let scales = bytes(2 * 3, seed: 7).map { (Float($0) + 1) / 1000 }
            writer.add("w_scale_inv", [2, 3], scales)
            // The byte must not be a NaN.
            stored = stored.map { $0 & 0x7F == 0x7F ? 0 : $0 }
            twin = stored.enumerated().map { place, byte in
                e4m3(byte) * scales[place / columns / 128 * 3 + place % columns / 128]
            }
        default:
            // The BF16 values have exponents near that of 1.
            for place in 0..<rows * columns {
                let high = stored[2 * place + 1] & 0x80 | 0x3F
                stored[2 * place + 1] = high
                twin.append(Float(bitPattern: UInt32(high) << 24 | UInt32(stored[2 * place]) << 16))
            }
        }
        writer.add("w", type.rawValue, [rows, columns], stored)
        writer.add("twin", [rows, columns], twin)
        return try index(writer)
    }

    @Test(arguments: [StoredType.i8, .f8e4m3, .bf16], Kernels.available.map(\.level))
    func `are multiplied as the F32 numbers they stand for`(type: StoredType, level: Kernels.Level) throws {
        let kernels = try #require(Kernels(level))
        let index = try Self.twins(type)
        let source = WeightSource.checkpoint(index)
        let weight = try source.matrix("w", rows, columns)
        let twin = try source.matrix("twin", rows, columns)
        #expect(weight.dtype == [.i8: .int8, .f8e4m3: .fp8, .bf16: .bf16][type])
        #expect(twin.dtype == .f32)
        for m in [1, 7, 40] {
            let scratch = Scratch(bytes: 1 << 26)
            let x = scratch.rows(m, columns)
            let numbers = bytes(m * columns, seed: UInt32(m))
            for (place, byte) in numbers.enumerated() { x[place / columns, place % columns] = Float(byte) / 99 - 1 }
            let (out, expected) = (scratch.rows(m, rows), scratch.rows(m, rows))
            kernels.matmul(x, weight, into: out, scratch)
            kernels.matmul(x, twin, into: expected, scratch)
            #expect(out.elements.map(\.bitPattern) == expected.elements.map(\.bitPattern), "\(m) rows")
            #expect(Set(out.elements).count > m * rows / 2, "the products are not all alike")
            withExtendedLifetime(scratch) {}
        }
        withExtendedLifetime(index) {}
    }

    @Test func `are refused when they are missing`() throws {
        let source = WeightSource.checkpoint(try Self.twins(.i8))
        let matrix = try refusal { try source.matrix("layers.3.absent.weight", 2, 2) }
        #expect(matrix.subject == .tensor("layers.3.absent.weight"))
        #expect(matrix.problem.contains("in none of"))
        let vector = try refusal { try source.vector("norm.weight", 2, dummy: 1) }
        #expect(vector.subject == .tensor("norm.weight"))
        #expect(!vector.advice.isEmpty)
    }

    @Test(arguments: [(200, 299), (300, 200), (1, 60_000), (201, 300)])
    func `are refused in another shape than config.json asks for`(wantedRows: Int, wantedColumns: Int) throws {
        for type in [StoredType.i8, .f8e4m3, .bf16] {
            let source = WeightSource.checkpoint(try Self.twins(type))
            for name in ["w", "twin"] {
                let error = try refusal { try source.matrix(name, wantedRows, wantedColumns) }
                #expect(error.subject == .tensor(name))
                #expect(error.problem.contains("[200, 300]"), "what it has")
                #expect(error.problem.contains("[\(wantedRows), \(wantedColumns)]"), "what is asked for")
                #expect(error.description.contains("model.safetensors"))
            }
        }
    }

    @Test func `are refused as a row when they are a matrix, or of another length`() throws {
        var writer = SafeTensorsWriter()
        writer.add("norm", [3], [1, 2, 3])
        writer.add("matrix", [1, 3], [1, 2, 3])
        writer.add("ints", "I32", [3], [UInt8](repeating: 0, count: 12))
        let source = WeightSource.checkpoint(try index(writer))
        let long = try refusal { try source.vector("norm", 4, dummy: 1) }
        #expect(long.subject == .tensor("norm") && long.problem.contains("[3]") && long.problem.contains("[4]"))
        let matrix = try refusal { try source.vector("matrix", 3, dummy: 1) }
        #expect(matrix.subject == .tensor("matrix") && matrix.problem.contains("[1, 3]"))
        let ints = try refusal { try source.vector("ints", 3, dummy: 1) }
        #expect(ints.subject == .tensor("ints") && ints.problem.contains("I32"))
    }

    @Test(arguments: [StoredType.f64, .i16, .i32, .f8e5m2, .f8e8m0])
    func `are refused in a type the kernels do not read`(type: StoredType) throws {
        var writer = SafeTensorsWriter()
        writer.add("w", type.rawValue, [2, 2], [UInt8](repeating: 0, count: 4 * type.bytes))
        let source = WeightSource.checkpoint(try index(writer))
        let error = try refusal { try source.matrix("w", 2, 2) }
        #expect(error.subject == .tensor("w") && error.problem.contains(type.rawValue))
        #expect(error.advice.contains("BF16"))
    }

    @Test(arguments: [("I8", "_scale"), ("F8_E4M3", "_scale_inv")])
    func `are refused without their scales`(type: String, suffix: String) throws {
        var writer = SafeTensorsWriter()
        writer.add("w", type, [2, 2], [1, 2, 3, 4])
        let source = WeightSource.checkpoint(try index(writer))
        let error = try refusal { try source.matrix("w", 2, 2) }
        #expect(error.subject == .tensor("w") && error.problem.contains("w" + suffix))
    }

    @Test func `are widened to F32 as a row`() throws {
        let values: [Float] = [1, -2.5, 0, -0.0, 0x1p-126, 3e38]
        let high = values.map { UInt16($0.bitPattern >> 16) }
        var writer = SafeTensorsWriter()
        writer.add("wide", [6], values)
        writer.add("narrow", "BF16", [6], high.flatMap { SafeTensorsWriter.littleEndian($0) })
        let source = WeightSource.checkpoint(try index(writer))
        #expect(try numbers(source, "wide", 6).map(\.bitPattern) == values.map(\.bitPattern))
        #expect(try numbers(source, "narrow", 6).map(\.bitPattern) == high.map { UInt32($0) << 16 })
    }
}

@Suite struct `Dummy weights` {
    @Test(arguments: [DType.f32, .bf16])
    func `are finite, not constant, and about as large as trained ones`(dtype: DType) throws {
        for seed in [0, 1, .max, 0 &- 0x9E37_79B9_7F4A_7C15] as [UInt64] {
            let dummy = DummyWeights(dtype: dtype, seed: seed)
            let weight = try WeightSource.dummy(dummy).matrix("any", 50, 400)
            let values = weight.elements
            #expect(weight.dtype == dtype && values.count == 50 * 400)
            #expect(values.allSatisfy { $0.isFinite })
            #expect(Set(values).count > (dtype == .f32 ? 15_000 : 500), "seed \(seed)")
            // The distribution has mean 0 and variance 1 / columns.
            let mean = values.reduce(0, +) / 20_000
            let square = values.reduce(0) { $0 + $1 * $1 } / 20_000
            #expect(abs(mean) < 0.002 && (0.9...1.1).contains(square * 400), "seed \(seed)")
            withExtendedLifetime(dummy) {}
        }
    }

    @Test(arguments: [DType.f32, .bf16])
    func `are the same for the same seed and others for another`(dtype: DType) throws {
        func draw(_ seed: UInt64) throws -> [[Float]] {
            let dummy = DummyWeights(dtype: dtype, seed: seed)
            let source = WeightSource.dummy(dummy)
            let drawn = [try source.matrix("first", 8, 64), try source.matrix("second", 8, 64)].map(\.elements)
            withExtendedLifetime(dummy) {}
            return drawn
        }
        let first = try draw(3)
        #expect(try draw(3) == first)
        #expect(first[0] != first[1], "matrices of a model differ")
        for seed in [0, 2, 4] as [UInt64] {
            let other = try draw(seed)
            #expect(zip(other, first).allSatisfy { $0 != $1 }, "seed \(seed)")
        }
    }

    /// Routed experts are in the format, other products in FP8, and what is never quantized in BF16.
    @Test(arguments: [WeightFormat(.fp8), WeightFormat(.fp8, .perRow), WeightFormat(.int8), WeightFormat(.fp4)])
    func `are stored as the checkpoint says`(experts: WeightFormat) throws {
        var model = try ReleasedModel.v4Flash.configuration().keepingLayers([2]).description
        model.formats.experts = experts
        let dummy = DummyWeights(of: model)
        let source = WeightSource.dummy(dummy)
        // 130 rows and 192 columns are no whole number of blocks.
        let expert = try source.matrix("layers.0.ffn.experts.7.w1.weight", 130, 192)
        #expect(expert.dtype == experts.dtype && expert.scaling == experts.scaling)
        let values = expert.elements
        let square = values.reduce(0) { $0 + $1 * $1 } / Float(values.count)
        // Scales of FP4 and FP8 are powers of two: the deviation is right within a factor of √2.
        let bounds: ClosedRange<Float> = experts.dtype == .int8 ? 0.93...1.07 : 0.45...2.2
        #expect(values.allSatisfy { $0.isFinite } && bounds.contains(square * 192), "\(square * 192)")
        #expect(abs(values.reduce(0, +) / Float(values.count)) < 0.005)
        #expect(Set(values).count > 10)
        let others = try ["layers.0.attn.wq_a.weight", "layers.0.ffn.gate.weight", "embed.weight"].map {
            try source.matrix($0, 4, 128).dtype
        }
        #expect(others == [.fp8, .bf16, .bf16])
        withExtendedLifetime(dummy) {}
    }

    @Test func `of a row are the value they are given`() throws {
        let source = WeightSource.dummy(DummyWeights(dtype: .bf16))
        #expect(try numbers(source, "norm", 3, dummy: 1) == [1, 1, 1])
        #expect(try numbers(source, "bias", 2, dummy: 0) == [0, 0])
    }

    @Test func `keep the memory of every matrix`() throws {
        let dummy = DummyWeights(dtype: .f32)
        for count in 1...3 {
            _ = try WeightSource.dummy(dummy).matrix("any", 2, 2)
            #expect(dummy.owners.count == count)
        }
    }

    @Test func `of experts are those of others, where only some have their own`() throws {
        let dummy = DummyWeights(dtype: .f32, distinctExperts: 2)
        let source = WeightSource.dummy(dummy)
        func values(_ name: String) throws -> [Float] { try source.matrix(name, 3, 5).elements }
        let experts = try (0..<5).map { try values("model.layers.1.mlp.experts.\($0).up_proj.weight") }
        #expect(experts[0] != experts[1] && experts[2] == experts[0] && experts[4] == experts[0])
        #expect(experts[3] == experts[1] && dummy.owners.count == 2)
        let others = try [
            "model.layers.1.mlp.experts.0.gate_proj.weight", "model.layers.2.mlp.experts.0.up_proj.weight",
            "model.layers.1.mlp.shared_experts.up_proj.weight", "model.layers.1.mlp.shared_experts.up_proj.weight",
        ].map(values)
        #expect(Set(others + experts).count == 6)
    }
}
