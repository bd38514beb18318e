import Checkpoints
import DeepSeekV32
import Foundation
import JSON
package import KVCache
import Modeling
package import Models
package import Tensors

/// A case of `Tests/Golden`: a tiny checkpoint, and the values that another implementation computed with it, stage by
/// stage.
package struct Golden: Sendable {
    package static let cases = [
        "v3", "v32", "v32-fp8", "v32-norope-scaling", "v3-fp8-cache", "v32-fp8-cache", "glm", "glm-shared", "v4",
        "v4-fp8-fp4", "v4-fp8-cache", "v4-fp4-index",
    ]

    /// The names of the cases that have a next-token block.
    package static let draftingCases = ["v3-drafts", "v32-drafts", "glm-drafts", "v4-drafts"]

    package let name: String
    package let directory: ModelDirectory
    package let prompt: [Int32]
    /// The greedy continuation of the prompt.
    package let continuation: [Int32]
    /// The log-probability of each continuation token, and its lead over the second best.
    package let logProbs: [Float]
    package let gaps: [Float]
    /// The element type in which the other implementation kept its keys.
    package let cacheType: CacheType
    private let stages: SafeTensorsFile

    package init(_ name: String) throws {
        self.name = name
        let path = Self.root + "/Tests/Golden/" + name
        directory = try ModelDirectory(path + "/checkpoint")
        stages = try SafeTensorsFile(path: path + "/stages.safetensors")
        let data = try Data(contentsOf: URL(fileURLWithPath: path + "/greedy.json"))
        let greedy = try JSONValue(parsing: data, limits: .strict)
        func numbers(_ name: String) -> [JSONValue] { greedy[name]!.array! }
        prompt = numbers("prompt").map { Int32($0.integer!) }
        continuation = numbers("continuation").map { Int32($0.integer!) }
        logProbs = numbers("logprobs").map { Float($0.double!) }
        gaps = numbers("gaps").map { Float($0.double!) }
        cacheType = greedy["cache"]?.string.map { CacheType(rawValue: $0)! } ?? .float32
    }

    /// The numerics profiles that differ, first the one that suits the checkpoint: no golden has INT8 weights.
    package var profiles: [NumericsProfile] {
        get throws {
            let first = try WeightIndex(directory: directory.path).profile
            return [first] + NumericsProfile.allCases.filter { $0 != first && !$0.isForIntegers }
        }
    }

    /// The path of the package's directory.
    package static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().path

    /// Returns the rows of a stage, such as `layers.0.attention`, widened to F32; `nil` if the case has none.
    package func rows(_ stage: String) -> [[Float]]? {
        guard let tensor = stages[stage] else { return nil }
        let bytes = unsafe tensor.bytes
        let columns = tensor.shape.count > 1 ? tensor.shape[1] : 1
        return (0..<tensor.shape[0]).map { row in
            (0..<columns).map { column in
                let offset = (row * columns + column) * 4
                return tensor.type == .i32
                    ? Float(unsafe bytes.loadUnaligned(fromByteOffset: offset, as: Int32.self))
                    : unsafe bytes.loadUnaligned(fromByteOffset: offset, as: Float.self)
            }
        }
    }
}
