import Checkpoints
import Foundation
import Tensors
import TestSupport
import Testing

/// Tests how INT8 matrices are read whose activations have one scale and offset for all tokens.
@Suite struct `A matrix with static activation scales` {
    private static let base = "model.layers.0.self_attn.q_a_proj"
    private static let matrix = base + ".weight"

    /// The tensors of a matrix of 2 × 16, by what follows its name; a test may replace some, or leave them out.
    private struct Tensors {
        var matrix = ("I8", [2, 16], [UInt8](repeating: 3, count: 16) + [UInt8](repeating: 0xFF, count: 16))
        var others: [String: (type: String, shape: [Int], bytes: [UInt8])] = [
            ".input_scale": ("F32", [1], bytes([Float(0.5)])), ".input_offset": ("F32", [1], bytes([Float(-2)])),
            ".quant_bias": ("I32", [2], bytes([Int32(96), -32])),
            ".deq_scale": ("F32", [2], bytes([Float(0.25), 0.125])),
        ]

        func written() throws -> TemporaryDirectory {
            let directory = try TemporaryDirectory()
            var writer = SafeTensorsWriter()
            writer.add(`A matrix with static activation scales`.matrix, matrix.0, matrix.1, matrix.2)
            // Wide types first, so that all are aligned.
            let order = ["I64", "F32", "I32", "BF16", "I8", "U8"]
            for (ending, tensor) in others.sorted(by: {
                order.firstIndex(of: $0.value.type)! < order.firstIndex(of: $1.value.type)!
            }) {
                writer.add(
                    `A matrix with static activation scales`.base + ending, tensor.type, tensor.shape, tensor.bytes)
            }
            try writer.write(to: directory.file("model.safetensors"))
            return directory
        }
    }

    private static func bytes<Number: BitwiseCopyable>(_ numbers: [Number]) -> [UInt8] {
        numbers.flatMap { number in unsafe withUnsafeBytes(of: number) { unsafe Array($0) } }
    }

    /// Multiplies rows of sixteen numbers by the matrix in a profile.
    private func product(_ rows: [[Float]], _ weight: Weight, _ profile: NumericsProfile) -> [Float] {
        let scratch = Scratch()
        let (x, out) = (scratch.rows(rows.count, 16), scratch.rows(rows.count, 2))
        for (row, numbers) in rows.enumerated() {
            for (column, number) in numbers.enumerated() { x[row, column] = number }
        }
        Kernels.best.computing(in: profile).matmul(x, weight, into: out, scratch)
        return out.elements
    }

    @Test func `rounds them in profiles for integers, and not in others`() throws {
        let directory = try Tensors().written()
        let weights = try WeightIndex(directory: directory.path)
        let matrix = try weights.matrix(Self.matrix, rows: 2, columns: 16)
        #expect(matrix.dtype == .int8 && matrix.scaling == .perRow && weights.profile == .int8)
        // Weights are 3 × 0.5 and -1 × 0.25. 0.7 becomes the integer 1, less the offset, of 0.5, and -63.8 is below them.
        let x = [[Float](repeating: 0.7, count: 16), [Float](repeating: -63.8, count: 16)]
        #expect(product(x, matrix, .int8F32) == [12, -2, -63 * 24, 63 * 4])
        let plain = product(x, matrix, .f32)
        #expect(abs(plain[0] - 0.7 * 24) < 1e-4 && abs(plain[3] - 63.8 * 4) < 1e-3)
    }

    @Test func `may have scales for F16 models, sums that tools have rounded, and those of the weights as well`() throws
    {
        var tensors = Tensors()
        tensors.others[".quant_bias"] = ("I32", [2], Self.bytes([Int32(100), -32]))
        tensors.others[".deq_scale"] = (
            "I64", [2], Self.bytes([Int64(Float(0.25).bitPattern), Int64(Float(0.125).bitPattern)])
        )
        tensors.others[".input_offset"] = ("I8", [1], [0xFE])
        tensors.others[".weight_scale"] = ("F32", [2, 1], Self.bytes([Float(0.5), 0.25]))
        tensors.others[".weight_offset"] = ("F32", [2, 1], Self.bytes([Float(0), 0]))
        let directory = try tensors.written()
        let weights = try WeightIndex(directory: directory.path)
        let matrix = try weights.matrix(Self.matrix, rows: 2, columns: 16)
        #expect(product([.init(repeating: 0.7, count: 16)], matrix, .int8F32) == [13, -2])
    }

    /// What is changed, and the words of the refusal.
    private static let refused: [(String, (type: String, shape: [Int], bytes: [UInt8])?, String)] = [
        (".input_scale", nil, "is missing"), (".input_offset", nil, "is missing"), (".quant_bias", nil, "is missing"),
        (".deq_scale", nil, "is missing"), (".input_scale", ("F32", [1], bytes([Float(0)])), "greater than 0"),
        (".input_scale", ("F32", [2], bytes([Float(1), 1])), "has the shape"),
        (".input_offset", ("F32", [1], bytes([Float(0.5)])), "no integer of -128 to 127"),
        (".input_offset", ("I32", [1], bytes([Int32(128)])), "no integer of -128 to 127"),
        (".quant_bias", ("I32", [2], bytes([Int32.max, 0])), "no integer of"),
        (".quant_bias", ("I32", [1], bytes([Int32(1)])), "has the shape"),
        (".deq_scale", ("F32", [2], bytes([Float(1), .nan])), "greater than 0"),
        (".deq_scale", ("I64", [2], bytes([Int64(1) << 40, 1])), "greater than 0"),
        (".deq_scale", ("U8", [2], [1, 1]), "is U8"),
        (".weight_scale", ("F32", [2, 1], bytes([Float(0.5), 0.5])), "but deq_scale / input_scale is"),
        (".weight_scale_inv", ("F32", [2, 1], bytes([Float(0.5), 0.5])), "but deq_scale / input_scale is"),
        (".quant_bias", ("I32", [2], bytes([Int32(196), -32])), "adds more to row 0"),
        (".input_scale", ("F32", [1], bytes([Float(1e-40)])), "inverse"),
    ]

    @Test(arguments: refused.indices) func `is refused with tensors that do not fit`(index: Int) throws {
        let (ending, tensor, words) = Self.refused[index]
        var tensors = Tensors()
        tensors.others[ending] = tensor
        let directory = try tensors.written()
        let weights = try WeightIndex(directory: directory.path)
        let error = try refusal { try weights.matrix(Self.matrix, rows: 2, columns: 16) }
        #expect("\(error)".contains(words) && "\(error)".contains(ending))
    }

    @Test func `is refused if it is not INT8`() throws {
        var tensors = Tensors()
        tensors.matrix = ("BF16", [2, 16], Array(repeating: 1, count: 64))
        let directory = try tensors.written()
        let weights = try WeightIndex(directory: directory.path)
        let error = try refusal { try weights.matrix(Self.matrix, rows: 2, columns: 16) }
        #expect("\(error)".contains("INT8"))
        #expect(try refusal { try weights.require(Self.matrix, shape: [2, 16]) } == error)
    }

    @Test func `is refused as pairs of FP4 elements, and as a vector`() throws {
        let directory = try Tensors().written()
        let weights = try WeightIndex(directory: directory.path)
        #expect("\(try refusal { try weights.matrix(Self.matrix, rows: 2, columns: 32) })".contains("belongs to"))
        #expect("\(try refusal { try weights.vector(Self.matrix, shape: [2, 16]) })".contains("belongs to"))
    }

    @Test func `has the shapes that inspect asks for, by headers alone`() throws {
        let directory = try Tensors().written()
        try WeightIndex(directory: directory.path).require(Self.matrix, shape: [2, 16])
        var tensors = Tensors()
        tensors.others[".deq_scale"] = ("F32", [1], Self.bytes([Float(1)]))
        let other = try tensors.written()
        let error = try refusal { try WeightIndex(directory: other.path).require(Self.matrix, shape: [2, 16]) }
        #expect("\(error)".contains("deq_scale") && "\(error)".contains("has the shape"))
    }

    @Test(arguments: [("W8A8", true), ("W8A8_DYNAMIC", false), ("FLOAT", false)])
    func `is described as such, or refused`(kind: String, isRight: Bool) throws {
        let directory = try Tensors().written()
        try Data(#"{"\#(Self.matrix)": "\#(kind)", "\#(Self.base).deq_scale": "\#(kind)"}"#.utf8).write(
            to: URL(fileURLWithPath: directory.file(ModelSlimDescription.fileName)))
        let description = try #require(try ModelSlimDescription.readIfPresent(in: directory.path))
        let weights = try WeightIndex(directory: directory.path)
        if isRight { return try description.validate(weights) }
        let error = try refusal { try description.validate(weights) }
        #expect(
            error.subject == .tensor(Self.matrix) && error.problem.contains("static") && error.problem.contains(kind))
    }
}
