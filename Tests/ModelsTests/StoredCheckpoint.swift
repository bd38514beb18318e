import Checkpoints
import Foundation
import Modeling
import Models
import TestSupport
import Testing

/// A tensor as a file has it.
typealias Stored = (name: String, type: StoredType, shape: [Int], bytes: [UInt8])

/// A checkpoint in memory, whose tensors can be stored in another way.
struct StoredCheckpoint {
    var configuration: [String: Any]
    var tensors: [Stored]

    /// Creates a checkpoint of random weights.
    init(_ storage: RandomCheckpoint.Storage) throws {
        var random = RandomCheckpoint()
        random.storage = storage
        random.layers = 2
        let directory = NSTemporaryDirectory() + "braid-stored-" + UUID().uuidString
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try random.write(to: directory)
        try self.init(in: directory)
    }

    /// Reads a golden checkpoint.
    init(golden: String) throws { try self.init(in: Golden.root + "/Tests/Golden/\(golden)/checkpoint") }

    private init(in directory: String) throws {
        let text = try Data(contentsOf: URL(fileURLWithPath: directory + "/config.json"))
        configuration = try #require(try JSONSerialization.jsonObject(with: text) as? [String: Any])
        let index = try WeightIndex(directory: directory)
        tensors = try index.names.map { name in
            let tensor = try index.tensor(named: name)
            return (name, tensor.type, tensor.shape, unsafe Array(tensor.bytes))
        }
    }

    subscript(name: String) -> Stored {
        get { tensors.first { $0.name == name }! }
        set { tensors[tensors.firstIndex { $0.name == name }!] = newValue }
    }

    mutating func remove(_ name: String) { tensors.removeAll { $0.name == name } }

    /// Returns the checkpoint with every tensor replaced.
    func mapped(_ replace: (Stored) -> Stored) -> StoredCheckpoint {
        var copy = self
        copy.tensors = tensors.map(replace)
        return copy
    }

    func load(drafts: Bool = false) throws -> any Model {
        let directory = NSTemporaryDirectory() + "braid-stored-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let text = try JSONSerialization.data(withJSONObject: configuration)
        try SafeTensorsWriter.write(Array(text), to: directory + "/config.json")
        // Wide elements come first, so that all are aligned.
        let sorted = tensors.sorted { $0.type.bytes > $1.type.bytes }
        try SafeTensorsWriter(sorted.map { ($0.name, $0.type.rawValue, $0.shape, $0.bytes) })
            .write(to: directory + "/model.safetensors")
        return try ModelDirectory(directory).load(drafts: drafts)
    }

    /// Returns the bits of the logits of a prompt, computed with many rows at once and then with one.
    func logits() throws -> [[UInt32]] {
        let model = try load()
        let prompt = (0..<40).map { Int32($0 * 37 % model.vocabularySize) }
        return Forward(model, isRecording: false).logits(prompt, chunks: [36, 1]).map { $0.map(\.bitPattern) }
    }
}
