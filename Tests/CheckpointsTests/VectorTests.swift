import Checkpoints
import Tensors
import TestSupport
import Testing

@Suite struct `A vector of a checkpoint` {
    /// Returns the index of a file with one tensor of ones, of which one number is replaced.
    private static func index(
        _ type: StoredType, _ shape: [Int], _ number: Float, at index: Int
    ) throws -> WeightIndex {
        var numbers = [Float](repeating: 1, count: shape.reduce(1, *))
        numbers[index] = number
        let bytes = numbers.flatMap { number in
            switch type {
            case .f16: SafeTensorsWriter.littleEndian(Float16(number).bitPattern)
            case .bf16: SafeTensorsWriter.littleEndian(UInt16(number.bitPattern >> 16))
            default: SafeTensorsWriter.littleEndian(number.bitPattern)
            }
        }
        let directory = try TemporaryDirectory()
        try SafeTensorsWriter([("norm", type.rawValue, shape, bytes)]).write(to: directory.file("model.safetensors"))
        return try WeightIndex(directory: directory.path)
    }

    @Test(arguments: [StoredType.f32, .bf16, .f16], [Float.nan, .infinity, -.infinity])
    func `is refused with a number that is not finite, naming its place`(type: StoredType, number: Float) throws {
        for place in [0, 3, 20] {
            let index = try Self.index(type, [21], number, at: place)
            let error = try refusal { try index.vector("norm", 21) }
            #expect(error.subject == .tensor("norm") && !error.advice.isEmpty)
            #expect(error.problem.hasPrefix("has \(number) at index [\(place)], but every number"), "\(error)")
        }
        let table = try Self.index(type, [4, 6], number, at: 16)
        let error = try refusal { try table.vector("norm", shape: [4, 6]) }
        #expect(error.problem.hasPrefix("has \(number) at index [2, 4], but every number"), "\(error)")
    }

    @Test(arguments: [StoredType.f32, .bf16, .f16], [0, -0.0, 0x1p-24, 61_440, -61_440] as [Float])
    func `may have any finite number`(type: StoredType, number: Float) throws {
        let index = try Self.index(type, [3], number, at: 1)
        let vector = try index.vector("norm", 3)
        #expect(withExtendedLifetime(vector) { vector.view.elements } == [1, number, 1])
    }
}
