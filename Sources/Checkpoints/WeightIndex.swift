import Foundation
import JSON
import Synchronization

/// Finds all tensors of a model directory, in any of its files.
///
/// The files are those that `model.safetensors.index.json` names; without an index, `model.safetensors`; without that,
/// every `*.safetensors`. All of them are opened and checked at once: 163 files and 92,425 tensors take about half a
/// second, as only headers are read.
package final class WeightIndex: Sendable {
    package static let indexName = "model.safetensors.index.json"
    /// An index may have this many bytes; that of the largest released model has 9 MB.
    static let maximumIndexBytes = 128 << 20

    package let directory: String
    /// The files, sorted by name.
    package let files: [SafeTensorsFile]
    /// All tensors' names, sorted.
    package let names: [String]
    /// The size of all tensors' values in bytes.
    package let totalBytes: Int
    /// All tensors by name.
    let tensors: [String: StoredTensor]
    /// Words for errors about tensors that are missing: which other names those may have that are there.
    private let namesNote: String
    /// Holds the tensors that were widened to F32, by name. A tensor that is used twice is widened once.
    let widened = Mutex<[String: WidenedTensor]>([:])
    /// Holds how activations are rounded that multiply a matrix, by its name, where the checkpoint fixes that.
    let rounded = Mutex<[String: FixedRounding]>([:])

    /// Opens a model directory.
    ///
    /// A file name in the index must be a plain name within the directory that ends in `.safetensors`. It may be a
    /// symbolic link to a regular file anywhere, which is how download caches store models. Every tensor of the index
    /// must be in the file it names, and no tensor may be in two files.
    package convenience init(directory: String) throws(CheckpointError) {
        let indexPath = directory + "/" + Self.indexName
        var map: [(tensor: String, file: String)]?
        var fileNames: [String]
        if RegularFile.exists(indexPath) {
            let weightMap = try Self.weightMap(indexPath)
            fileNames = Set(weightMap.map(\.file)).sorted()
            map = weightMap
        } else {
            fileNames = try Self.unindexedFiles(directory)
        }
        var files: [SafeTensorsFile] = []
        var tensors: [String: StoredTensor] = [:]
        for name in fileNames {
            let file = try SafeTensorsFile(path: directory + "/" + name)
            for tensor in file.tensors {
                if let other = tensors.updateValue(tensor, forKey: tensor.name) {
                    throw tensor.refusal(
                        "is also in \(other.file.path)",
                        advice: "remove the file that does not belong to this model from the directory or the index")
                }
            }
            files.append(file)
        }
        for (tensor, file) in map ?? [] where tensors[tensor]?.file.path != directory + "/" + file {
            throw CheckpointError(
                file: directory + "/" + file, subject: .tensor(tensor),
                problem: "is not in this file, but \(Self.indexName) says so",
                advice: "index and files are of different downloads: download the model again")
        }
        self.init(directory: directory, files: files, tensors: tensors, namesNote: "")
    }

    private init(
        directory: String, files: [SafeTensorsFile], tensors: [String: StoredTensor], namesNote: String
    ) {
        (self.directory, self.files, self.tensors, self.namesNote) = (directory, files, tensors, namesNote)
        names = tensors.keys.sorted()
        totalBytes = tensors.values.reduce(0) { $0 + $1.byteCount }
    }

    /// Returns an index of the same files whose tensors have other names.
    ///
    /// - Parameters:
    ///   - owner: a word for the names that the files have, for errors about tensors that are missing.
    ///   - rename: returns what a tensor of the files becomes: the same under another name, or several of its parts.
    /// - Throws: what `rename` throws, and if two tensors get the same name.
    package func renamed(
        fromNamesOf owner: String, _ rename: (StoredTensor) throws(CheckpointError) -> [StoredTensor]
    ) throws(CheckpointError) -> WeightIndex {
        var renamed: [String: StoredTensor] = [:]
        for name in names {
            for tensor in try rename(tensors[name]!) {
                guard let other = renamed.updateValue(tensor, forKey: tensor.name) else { continue }
                throw tensor.refusal(
                    "is the model's \(tensor.name), and so is \(other.quotedName)",
                    advice: "the directory has two checkpoints, or one under two names: remove one of both")
            }
        }
        return WeightIndex(
            directory: directory, files: files, tensors: renamed, namesNote: " under this name or that of \(owner)")
    }

    /// Returns true if a directory has any file of weights, which people plan without before they download them. An index
    /// without files does not count.
    package static func hasWeights(in directory: String) -> Bool {
        let entries = try? FileManager.default.contentsOfDirectory(atPath: directory)
        return entries?.contains { $0.hasSuffix(".safetensors") } ?? false
    }

    /// Returns true if one of the files holds a tensor of this name.
    package func contains(_ name: String) -> Bool { tensors[name] != nil }

    /// Returns the tensor of this name.
    package func tensor(named name: String) throws(CheckpointError) -> StoredTensor {
        guard let tensor = tensors[name] else {
            throw CheckpointError(
                file: directory, subject: .tensor(name),
                problem: "is in none of the \(files.count) files" + namesNote,
                advice: "check that config.json belongs to these weights and that the download is complete")
        }
        return tensor
    }
}

// MARK: - Finding the files

extension WeightIndex {
    private static func weightMap(_ path: String) throws(CheckpointError) -> [(tensor: String, file: String)] {
        let bytes = try RegularFile(opening: path).contents(limit: maximumIndexBytes)
        let root = try ModelConfigurationFile.object(in: bytes, file: path, maximumBytes: maximumIndexBytes)
        let map = try root.object("weight_map")
        let tensors = map.keys
        guard !tensors.isEmpty else {
            throw root.refusal("weight_map", "names no tensor", advice: "download the index again")
        }
        var pairs: [(tensor: String, file: String)] = []
        pairs.reserveCapacity(tensors.count)
        for tensor in tensors {
            let file = try map.string(tensor)
            guard isPlainName(file) else {
                throw map.refusal(
                    tensor, "names the file \(file.quotedForMessage), which is not a plain name ending in .safetensors",
                    advice: "files must lie in the directory of the index: correct it or download it again")
            }
            pairs.append((tensor, file))
        }
        return pairs
    }

    /// Returns true if a file name from the index cannot leave its directory.
    private static func isPlainName(_ name: String) -> Bool {
        name.hasSuffix(".safetensors") && !name.contains("/") && !name.contains("\\") && !name.contains("..")
            && !name.hasControlCharacters && name.utf8.count <= 255
    }

    private static func unindexedFiles(_ directory: String) throws(CheckpointError) -> [String] {
        let single = "model.safetensors"
        if RegularFile.exists(directory + "/" + single) { return [single] }
        let entries: [String]
        do {
            entries = try FileManager.default.contentsOfDirectory(atPath: directory)
        } catch {
            throw CheckpointError(
                file: directory, problem: "cannot be listed as a directory",
                advice: "give the path of a model directory that may be read")
        }
        let files = entries.filter { $0.hasSuffix(".safetensors") }.sorted()
        guard !files.isEmpty else {
            throw CheckpointError(
                file: directory, problem: "holds no .safetensors file",
                advice: "give a model directory with weights in this format; others (.bin, .pt, .gguf) are not read")
        }
        return files
    }
}
