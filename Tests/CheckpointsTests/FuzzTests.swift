import Checkpoints
import Foundation
import TestSupport
import Testing

/// Changes, removes, inserts or cuts off a few bytes; sometimes writes numbers that are hard on arithmetic.
private func mutated(_ original: [UInt8], _ random: inout SplitMix64) -> [UInt8] {
    var bytes = original
    let splices = [
        "-1", "9223372036854775807", "18446744073709551616", "1e999", "[", "]", "{", "}", "\"", ",", ":", "null",
        "[0,0]", "\\u0000", "\\ud800", "__metadata__",
    ]
    for _ in 0..<Int.random(in: 1...3, using: &random) where !bytes.isEmpty {
        let place = Int.random(in: 0..<bytes.count, using: &random)
        switch Int.random(in: 0..<6, using: &random) {
        case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
        case 1: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        case 2: bytes.removeLast(bytes.count - place)
        case 3: bytes.remove(at: place)
        case 4: bytes.insert(contentsOf: splices.randomElement(using: &random)!.utf8, at: place)
        default: bytes[min(place, 7)] = [0, 1, 0x7F, 0x80, 0xFF].randomElement(using: &random)!
        }
    }
    return bytes
}

@Suite struct `Damaged bytes` {
    @Test(.timeLimit(.minutes(15)))
    func `give a valid safetensors file or an error, 5000 times`() throws {
        var writer = SafeTensorsWriter()
        writer.metadata = ["format": "pt"]
        writer.add("a.weight", [2, 3], [1, 2, 3, 4, 5, 6])
        writer.add("b.weight", "F8_E4M3", [3, 2], [1, 2, 3, 4, 5, 6])
        writer.add("c", "BF16", [1], [0, 0])
        writer.add("empty", "I64", [0], [])
        let original = writer.encoded()
        let directory = try TemporaryDirectory()
        var random = SplitMix64(seed: 0xB1A1D)
        var (accepted, refused, sum) = (0, 0, 0)
        for round in 0..<5000 {
            // A new name each time: some file systems wait for the disk when a file is overwritten.
            let bytes = mutated(original, &random)
            let path = try directory.write("fuzz-\(round).safetensors", bytes)
            defer { unsafe unlink(path) }
            do throws(CheckpointError) {
                let file = try SafeTensorsFile(path: path)
                accepted += 1
                var covered = 0
                for tensor in file.tensors {
                    sum &+= unsafe tensor.bytes.reduce(0) { $0 + Int($1) }
                    covered += tensor.byteCount
                    #expect(tensor.shape.reduce(tensor.type.bytes, *) == tensor.byteCount, "round \(round)")
                }
                #expect(covered <= bytes.count - 8, "round \(round)")
            } catch {
                refused += 1
                #expect(error.file == path, "round \(round)")
            }
        }
        // Both must happen, or the mutations test nothing: data bytes may change freely, the header may not.
        #expect(accepted > 100 && refused > 1000 && sum > 0, "\(accepted) accepted, \(refused) refused")
    }

    @Test(.timeLimit(.minutes(15)))
    func `give a configuration that another reader also takes, or an error, 5000 times`() throws {
        let original = Array(
            #"{"a": [1, -2.5e3, true, null, {"b": "\u00e9\ud83d\ude00\n"}], "rope": {"k": 40}, "x": "é", "e": {}}"#
                .utf8)
        var random = SplitMix64(seed: 0xC0FF)
        var (accepted, refused) = (0, 0)
        for round in 0..<5000 {
            let bytes = mutated(original, &random)
            do throws(CheckpointError) {
                _ = try ModelConfigurationFile.parse(bytes, file: "config.json")
                accepted += 1
                #expect((try? JSONSerialization.jsonObject(with: Data(bytes))) != nil, "round \(round)")
            } catch {
                refused += 1
            }
        }
        #expect(accepted > 100 && refused > 1000, "\(accepted) accepted, \(refused) refused")
    }
}
