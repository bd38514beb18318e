package import Checkpoints
import Foundation

/// The directory of a model, found from what a user gave: a directory, a directory of Hugging Face's download cache, or
/// a model's name on Hugging Face that was downloaded into that cache. Nothing is ever downloaded.
package struct ModelLocation: Sendable, Equatable {
    /// The directory that contains `config.json`.
    package let directory: String
    /// The name of the model: its name on Hugging Face or the directory's name.
    package let name: String

    /// Finds a model.
    ///
    /// - Parameters:
    ///   - given: What the user gave.
    ///   - revision: A branch, tag or commit; it only concerns download caches. `nil` takes `main`, or the only snapshot.
    ///   - cache: The directory of the download cache; `nil` takes the one that the environment names.
    /// - Throws: `CheckpointError` that says what is there instead, and what to give.
    package init(
        _ given: String, revision: String? = nil, cache: String? = nil,
        environment: [String: String] = ProcessInfo.processInfo.environment
    ) throws(CheckpointError) {
        guard !given.isEmpty else {
            throw CheckpointError(
                file: "--model-path", problem: "is empty",
                advice: "give the directory of a model, or its name on Hugging Face")
        }
        let given = given.count > 1 && given.hasSuffix("/") ? String(given.dropLast()) : given
        switch FileKind(given) {
        case .directory:
            if FileKind(given + "/snapshots") == .directory {
                self = try Self.snapshot(in: given, given: given, revision)
                return
            }
            directory = given
            name = URL(fileURLWithPath: given).lastPathComponent
            guard FileKind(given + "/config.json") == .none else { return }
            throw Self.withoutConfiguration(given)
        case .file:
            let isGGUF = given.lowercased().hasSuffix(".gguf")
            throw CheckpointError(
                file: given, problem: isGGUF ? "is a GGUF file, which is not read" : "is a file, not a directory",
                advice: isGGUF
                    ? "give the directory of the released checkpoint"
                    : "give the directory with config.json and the weights")
        case .none:
            guard let (words, page) = try Self.id(in: given) else {
                throw CheckpointError(
                    file: given, problem: "there is no such directory", advice: "check --model-path")
            }
            if let colon = words[1].firstIndex(of: ":") {
                let isGGUF = [words[1], words[1][..<colon]].contains { $0.lowercased().hasSuffix("gguf") }
                throw CheckpointError(
                    file: given,
                    problem: isGGUF
                        ? "names a GGUF file of a model by its quantization, which is not read"
                        : "is no directory, and no name of a model on Hugging Face, which has no ':'",
                    advice: isGGUF
                        ? "give the name of the released checkpoint"
                        : "leave out '\(words[1][colon...])'; a revision is given by --revision")
            }
            if let revision, let page, revision != page {
                throw CheckpointError(
                    file: given, problem: "is the page of revision \(page), but --revision is \(revision)",
                    advice: "give one of them")
            }
            let cache = cache ?? Self.cacheDirectory(environment)
            let folder = cache + "/models--" + words.joined(separator: "--")
            guard FileKind(folder) == .directory else {
                throw CheckpointError(
                    file: given,
                    problem: "there is no such directory, and no such model in Hugging Face's cache \(cache)",
                    advice: "download it first: hf download \(words.joined(separator: "/"))")
            }
            self = try Self.snapshot(in: folder, given: given, revision ?? page)
        }
    }

    private init(directory: String, name: String) {
        self.directory = directory
        self.name = name
    }

    /// Returns the organization and the name in a model's name on Hugging Face, or in the address of its page with the
    /// revision that the page shows; `nil` if this is neither.
    ///
    /// - Throws: an error about the address of another page.
    private static func id(in given: String) throws(CheckpointError) -> (words: [Substring], page: String?)? {
        let sites = ["https://", "http://", ""].flatMap { ["\($0)huggingface.co/", "\($0)hf.co/"] }
        let site = sites.first(where: given.hasPrefix)
        var words = given.dropFirst(site?.count ?? 0).split(separator: "/", omittingEmptySubsequences: false)
        var page: String?
        if site != nil {
            if words.count == 4, words[2] == "tree", !words[3].isEmpty {
                page = String(words[3])
                words.removeLast(2)
            }
            guard words.count <= 2, words[0] != "datasets", words[0] != "spaces",
                !given.contains(where: { $0 == "?" || $0 == "#" })
            else {
                throw CheckpointError(
                    file: given, problem: "is not the address of a model's page on Hugging Face",
                    advice: "give https://huggingface.co/ORGANIZATION/NAME, or that and /tree/REVISION")
            }
        }
        guard words.count == 2, words.allSatisfy({ !$0.isEmpty && !$0.hasPrefix(".") && !$0.hasPrefix("~") }) else {
            return nil
        }
        return (words, page)
    }

    /// Hugging Face's download cache, as its own library finds it.
    static func cacheDirectory(_ environment: [String: String]) -> String {
        func value(_ name: String) -> String? { environment[name].flatMap { $0.isEmpty ? nil : $0 } }
        if let cache = value("HF_HUB_CACHE") ?? value("HUGGINGFACE_HUB_CACHE") { return cache }
        if let home = value("HF_HOME") { return home + "/hub" }
        let cache = value("XDG_CACHE_HOME") ?? (value("HOME") ?? NSHomeDirectory()) + "/.cache"
        return cache + "/huggingface/hub"
    }

    /// Returns the snapshot of a revision in a directory `models--organization--name`.
    private static func snapshot(
        in folder: String, given: String, _ revision: String?
    ) throws(CheckpointError) -> ModelLocation {
        let base = URL(fileURLWithPath: folder).lastPathComponent
        let name =
            base.hasPrefix("models--")
            ? base.dropFirst("models--".count).replacingOccurrences(of: "--", with: "/") : base
        let snapshots = ((try? FileManager.default.contentsOfDirectory(atPath: folder + "/snapshots")) ?? []).sorted()
        let asked = revision ?? "main"
        let reference = try? String(contentsOfFile: folder + "/refs/" + asked, encoding: .utf8)
        let commit = reference?.trimmingCharacters(in: .whitespacesAndNewlines) ?? asked
        var chosen = snapshots.first { $0 == commit } ?? snapshots.first { commit.count >= 7 && $0.hasPrefix(commit) }
        if chosen == nil, revision == nil, snapshots.count == 1 { chosen = snapshots[0] }
        guard let chosen else {
            let list = snapshots.isEmpty ? "there is none" : "there are \(snapshots.joined(separator: ", "))"
            throw CheckpointError(
                file: folder, problem: "has no snapshot of revision \(asked); \(list)",
                advice: snapshots.isEmpty ? "download it again: hf download \(name)" : "give one of them as --revision")
        }
        let directory = folder + "/snapshots/" + chosen
        guard FileKind(directory + "/config.json") != .none else { throw withoutConfiguration(directory) }
        return ModelLocation(directory: directory, name: name)
    }

    /// Returns the error about a directory without `config.json`.
    private static func withoutConfiguration(_ directory: String) -> CheckpointError {
        let entries = ((try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []).sorted()
        let problem: String
        if entries.isEmpty {
            problem = "is an empty directory"
        } else if let file = entries.first(where: { $0.lowercased().hasSuffix(".gguf") }) {
            problem = "has no config.json, but the GGUF file \(file), which is not read"
        } else if let inner = entries.first(where: { FileKind(directory + "/\($0)/config.json") == .file }) {
            problem = "has no config.json; its directory \(inner) has"
        } else {
            problem = "has no config.json"
        }
        return CheckpointError(
            file: directory, problem: problem,
            advice: "give the directory of a released checkpoint: config.json, *.safetensors, tokenizer.json")
    }

    private enum FileKind {
        case none, file, directory

        init(_ path: String) {
            var isDirectory: ObjCBool = false
            let exists = unsafe FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory)
            self = !exists ? .none : isDirectory.boolValue ? .directory : .file
        }
    }
}
