import Foundation
import Inference
import JSON

/// Checkpoints of which one file is damaged: bytes anywhere, values of JSON, names and shapes and offsets of tensors,
/// lengths of files.
struct Checkpoints: AttackKind {
    static let name = "checkpoints"

    let program: Program
    /// The directory of a valid checkpoint.
    let model: String

    func run(_ random: inout SeededGenerator) throws {
        let folder = program.newPath()
        let manager = FileManager.default
        defer { try? manager.removeItem(atPath: folder) }
        try manager.createDirectory(atPath: folder, withIntermediateDirectories: true)
        let names = try manager.contentsOfDirectory(atPath: model).filter {
            $0.hasSuffix(".json") || $0.hasSuffix(".safetensors")
        }.sorted()
        let damaged = random.pick(names)
        for name in names where name != damaged {
            try manager.createSymbolicLink(atPath: "\(folder)/\(name)", withDestinationPath: "\(model)/\(name)")
        }
        let original = [UInt8](manager.contents(atPath: "\(model)/\(damaged)") ?? Data())
        let bytes = damaged.hasSuffix(".json") ? json(original, &random) : safetensors(original, &random)
        if !random.oneIn(40) { try Data(bytes).write(to: URL(fileURLWithPath: "\(folder)/\(damaged)")) }
        do {
            try program.run(
                [
                    "generate", "--model-path", folder, "--prompt", "Once upon a time", "--max-new-tokens", "2",
                    "--tuning", "off",
                ]
                    + random.pick([[], [], ["--preload"], ["--speculative-num-steps", "2"]]))
        } catch let finding as Finding {
            throw Finding("\(damaged): \(finding)")
        }
    }

    private func json(_ original: [UInt8], _ random: inout SeededGenerator) -> [UInt8] {
        guard random.below(4) > 0, var value = try? JSONValue(parsing: original) else {
            return Mutation.damaged(original, &random)
        }
        for _ in 0...random.below(2) { value = Mutation.changed(value, &random) }
        return value.pythonBytes
    }

    /// Changes the header of a file, whose length stands in its first eight bytes, or the file's end.
    private func safetensors(_ original: [UInt8], _ random: inout SeededGenerator) -> [UInt8] {
        let length = original.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
        let (header, data) = (Array(original[8..<8 + length]), original[(8 + length)...])
        func file(_ header: [UInt8], length: UInt64? = nil) -> [UInt8] {
            let length = length ?? UInt64(header.count)
            return (0..<8).map { UInt8(truncatingIfNeeded: length >> (8 * $0)) } + header + data
        }
        switch random.below(8) {
        case 0: return Array(original.prefix(random.below(original.count)))
        case 1:
            return file(
                header,
                length: random.pick([0, 1, 7, .max, 1 << 63, 1 << 40, UInt64(original.count), UInt64(length) + 1]))
        case 2: return original + [0]
        case 3: return file(Mutation.damaged(header, &random))
        default:
            guard let value = try? JSONValue(parsing: header) else { return original }
            return file(Mutation.changed(value, &random).pythonBytes)
        }
    }
}
