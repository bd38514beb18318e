import Checkpoints
import Foundation
import Modeling
import Models
import Tensors
import TestSupport
import Testing

private func floats(_ bytes: [UInt8]) -> [Float] {
    stride(from: 0, to: bytes.count, by: 4).map { at in
        Float(bitPattern: (0..<4).reduce(UInt32(0)) { $0 | UInt32(bytes[at + $1]) << (8 * $1) })
    }
}

private func bytes(_ values: [Float]) -> [UInt8] { values.flatMap { SafeTensorsWriter.littleEndian($0.bitPattern) } }

/// Returns an E4M3 number by the definition of the format; there are no NaNs here.
private func e4m3(_ byte: UInt8) -> Float {
    let (exponent, mantissa) = (Int(byte >> 3 & 15), Float(byte & 7) / 8)
    return Float(
        sign: byte & 0x80 == 0 ? .plus : .minus, exponent: max(exponent, 1) - 7,
        significand: exponent == 0 ? mantissa : 1 + mantissa)
}

@Suite struct `A checkpoint stored in another way has the same logits` {
    @Test(arguments: [StoredType.bf16, .f8e8m0])
    func `with narrow scales as with F32 ones`(type: StoredType) throws {
        let original = try StoredCheckpoint(.fp8)
        /// Returns the bits of a scale that the type has, as its exponent or its upper half.
        func rounded(_ scale: Float) -> Float {
            Float(bitPattern: scale.bitPattern & (type == .bf16 ? 0xFFFF_0000 : 0xFF80_0000))
        }
        func isScale(_ tensor: Stored) -> Bool { tensor.name.hasSuffix("_scale_inv") }
        let wide = original.mapped { tensor in
            guard isScale(tensor) else { return tensor }
            return (tensor.name, .f32, tensor.shape, bytes(floats(tensor.bytes).map(rounded)))
        }
        let narrow = original.mapped { tensor in
            guard isScale(tensor) else { return tensor }
            let stored = floats(tensor.bytes).map(\.bitPattern).flatMap { bits in
                type == .bf16 ? SafeTensorsWriter.littleEndian(UInt16(bits >> 16)) : [UInt8(bits >> 23)]
            }
            return (tensor.name, type, tensor.shape, stored)
        }
        #expect(original.tensors.contains { isScale($0) && $0.shape[0] > 1 }, "there are several blocks")
        let expected = try wide.logits()
        #expect(try narrow.logits() == expected)
        #expect(try original.logits() != expected, "the scales matter")
    }

    @Test(arguments: [DType.fp8, .int8], [0, 1])
    func `with scales of every legal kind as dequantized`(dtype: DType, kind: Int) throws {
        let scaling = dtype.scalings[kind]
        let original = try StoredCheckpoint(.fp8)
        var (scaled, plain) = (original, original)
        plain.configuration["quantization_config"] = nil
        for tensor in original.tensors where tensor.type == .f8e4m3 {
            let (rows, columns) = (tensor.shape[0], tensor.shape[1])
            let grid = try #require(scaling.grid(rows: rows, columns: columns))
            let scales = (0..<grid.rows * grid.columns).map { (1 + Float($0 % 7) / 4) / (dtype == .int8 ? 1024 : 16) }
            let name = tensor.name + "_scale_inv"
            scaled[tensor.name].type = dtype == .int8 ? .i8 : .f8e4m3
            scaled[name] = (name, .f32, [grid.rows, grid.columns], bytes(scales))
            let values = tensor.bytes.enumerated().map { at, byte in
                let (row, column) = scaling == .perRow ? (at / columns, 0) : (at / columns / 128, at % columns / 128)
                return (dtype == .int8 ? Float(Int8(bitPattern: byte)) : e4m3(byte))
                    * scales[row * grid.columns + column]
            }
            plain[tensor.name] = (tensor.name, .f32, tensor.shape, bytes(values))
            plain.remove(name)
        }
        let expected = try plain.logits()
        #expect(try scaled.logits() == expected)
        #expect(Set(expected[0]).count > 100)
    }

    @Test(arguments: [StoredType.f32, .bf16])
    func `as llm-compressor writes FP8 as dequantized`(type: StoredType) throws {
        let original = try StoredCheckpoint(.fp8)
        var (scaled, plain) = (original, original)
        plain.configuration["quantization_config"] = nil
        let numbers: [String: Any] = ["num_bits": 8, "type": "float", "symmetric": true]
        scaled.configuration["quantization_config"] = [
            "quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"],
            "config_groups": [
                "group_0": [
                    "targets": ["Linear"],
                    "weights": numbers.merging(["strategy": "channel", "dynamic": false]) { $1 },
                    "input_activations": numbers.merging(["strategy": "token", "dynamic": true]) { $1 },
                ]
            ],
        ]
        for tensor in original.tensors where tensor.type == .f8e4m3 {
            let (rows, columns) = (tensor.shape[0], tensor.shape[1])
            let scales = (0..<rows).map { (1 + Float($0 % 7) / 4) / 16 }
            let stored = scales.flatMap { scale in
                type == .f32
                    ? SafeTensorsWriter.littleEndian(scale.bitPattern)
                    : SafeTensorsWriter.littleEndian(UInt16(scale.bitPattern >> 16))
            }
            scaled.remove(tensor.name + "_scale_inv")
            plain.remove(tensor.name + "_scale_inv")
            scaled.tensors.append((tensor.name + "_scale", type, [rows, 1], stored))
            let values = tensor.bytes.enumerated().map { at, byte in e4m3(byte) * scales[at / columns] }
            plain[tensor.name] = (tensor.name, .f32, tensor.shape, bytes(values))
        }
        #expect(try scaled.logits() == plain.logits())
    }

    @Test func `in F16 as in F32`() throws {
        let original = try StoredCheckpoint(.f32)
        var half = original.mapped { tensor in
            let stored = floats(tensor.bytes).flatMap { SafeTensorsWriter.littleEndian(Float16($0).bitPattern) }
            return (tensor.name, .f16, tensor.shape, stored)
        }
        half.configuration["torch_dtype"] = "float16"
        let wide = original.mapped { tensor in
            (tensor.name, .f32, tensor.shape, bytes(floats(tensor.bytes).map { Float(Float16($0)) }))
        }
        #expect(try half.logits() == wide.logits())
    }

    @Test(arguments: [RandomCheckpoint.Storage.bf16, .f32])
    func `with tied embeddings as with two equal matrices`(storage: RandomCheckpoint.Storage) throws {
        var equal = try StoredCheckpoint(storage)
        equal["lm_head.weight"].bytes = equal["model.embed_tokens.weight"].bytes
        let expected = try equal.logits()
        var tied = equal
        tied.configuration["tie_word_embeddings"] = true
        #expect(try tied.logits() == expected, "a copy is allowed")
        tied.remove("lm_head.weight")
        #expect(try tied.logits() == expected)
    }
}

@Suite struct `A checkpoint that cannot be read as it says` {
    @Test func `is refused where tied matrices differ, or the head is missing`() throws {
        var checkpoint = try StoredCheckpoint(.bf16)
        checkpoint.configuration["tie_word_embeddings"] = true
        let differing = try refusal { try checkpoint.load() }
        #expect(differing.subject == .tensor("lm_head.weight"))
        checkpoint.configuration["tie_word_embeddings"] = false
        checkpoint.remove("lm_head.weight")
        #expect(try refusal { try checkpoint.load() }.subject == .tensor("lm_head.weight"))
    }

    @Test func `is refused with scales that no kernel applies`() throws {
        var checkpoint = try StoredCheckpoint(.bf16)
        let name = "model.layers.1.self_attn.o_proj.weight"
        checkpoint.tensors.append((name + "_scale", .f32, [136], bytes(.init(repeating: 1, count: 136))))
        let error = try refusal { try checkpoint.load() }
        #expect(error.subject == .tensor(name) && error.problem.contains("no kernel reads"))
        #expect(error.advice.contains("F8_E4M3 with a scale per 128 × 128 block"))
    }

    @Test(arguments: [
        (StoredType.f32, [0, 0, 0, 0]), (.f32, [0, 0, 0xC0, 0x7F]), (.bf16, [0, 0]), (.f8e8m0, [0xFF]),
    ])
    func `is refused with a scale of zero or no number`(type: StoredType, scale: [UInt8]) throws {
        var checkpoint = try StoredCheckpoint(.fp8)
        let name = "model.layers.1.self_attn.o_proj.weight_scale_inv"
        let count = checkpoint[name].shape.reduce(1, *)
        // A scale of 0x3F bytes is legal in each of these types.
        let stored = [UInt8](repeating: 0x3F, count: (count - 1) * type.bytes) + scale
        checkpoint[name] = (name, type, checkpoint[name].shape, stored)
        let error = try refusal { try checkpoint.load() }
        #expect(error.subject == .tensor(name) && error.problem.contains("scale \(count - 1) is"))
    }
}
