import Checkpoints
import Foundation
import TestSupport
import Testing

/// A directory with two shards and an index that maps the given names.
private func shards(_ map: [(String, String)]) throws -> TemporaryDirectory {
    let directory = try TemporaryDirectory()
    try SafeTensorsWriter([("a", "U8", [2], [1, 2]), ("b", "U8", [1], [3])])
        .write(to: directory.file("model-00001-of-00002.safetensors"))
    try SafeTensorsWriter([("c", "U8", [3], [4, 5, 6])]).write(to: directory.file("model-00002-of-00002.safetensors"))
    try directory.write(WeightIndex.indexName, index(map))
    return directory
}

private func index(_ map: [(String, String)]) -> String {
    let pairs = map.map { #""\#($0)":"\#($1)""# }.joined(separator: ",")
    return #"{"metadata":{"total_size":6},"weight_map":{\#(pairs)}}"#
}

private let first = "model-00001-of-00002.safetensors"
private let second = "model-00002-of-00002.safetensors"

@Suite struct `A model directory` {
    @Test func `with an index gives the tensors of all its shards`() throws {
        let directory = try shards([("a", first), ("b", first), ("c", second)])
        try directory.write("unrelated.safetensors", "not read, as the index does not name it")
        let index = try WeightIndex(directory: directory.path)
        #expect(index.names == ["a", "b", "c"])
        #expect(index.totalBytes == 6)
        #expect(index.files.count == 2)
        #expect(index.contains("c") && !index.contains("d"))
        #expect(unsafe Array(try index.tensor(named: "a").bytes) == [1, 2])
        #expect(unsafe Array(try index.tensor(named: "c").bytes) == [4, 5, 6])
    }

    @Test func `without an index gives model.safetensors alone`() throws {
        let directory = try TemporaryDirectory()
        try SafeTensorsWriter([("a", "U8", [1], [1])]).write(to: directory.file("model.safetensors"))
        try SafeTensorsWriter([("b", "U8", [1], [1])]).write(to: directory.file("other.safetensors"))
        #expect(try WeightIndex(directory: directory.path).names == ["a"])
    }

    @Test func `without either gives every safetensors file`() throws {
        let directory = try TemporaryDirectory()
        try SafeTensorsWriter([("a", "U8", [1], [1])]).write(to: directory.file("x.safetensors"))
        try SafeTensorsWriter([("b", "U8", [1], [1])]).write(to: directory.file("y.safetensors"))
        try directory.write("notes.txt", "not a shard")
        #expect(try WeightIndex(directory: directory.path).names == ["a", "b"])
    }

    @Test func `may hold symbolic links to files elsewhere, as download caches do`() throws {
        let cache = try TemporaryDirectory()
        try SafeTensorsWriter([("a", "U8", [1], [9])]).write(to: cache.file("0f3a"))
        let directory = try TemporaryDirectory()
        try FileManager.default.createSymbolicLink(
            atPath: directory.file("model.safetensors"), withDestinationPath: cache.file("0f3a"))
        #expect(try WeightIndex(directory: directory.path).names == ["a"])
    }

    @Test func `is refused when it has no weights`() throws {
        let directory = try TemporaryDirectory()
        let error = try refusal { try WeightIndex(directory: directory.path) }
        #expect(error.description.contains("\(directory.path): holds no .safetensors file"))
    }

    @Test func `is refused when it does not exist`() throws {
        let error = try refusal { try WeightIndex(directory: "/nowhere/at/all") }
        #expect(error.description.contains("/nowhere/at/all: cannot be listed"))
    }

    @Test func `names a tensor that is in none of its files`() throws {
        let directory = try shards([("a", first)])
        let index = try WeightIndex(directory: directory.path)
        let error = try refusal { try index.tensor(named: "model.norm.weight") }
        #expect(error.subject == .tensor("model.norm.weight"))
        #expect(error.problem == "is in none of the 1 files")
    }

    @Test func `is refused when a tensor is in two files`() throws {
        let directory = try shards([("a", first), ("c", second)])
        try SafeTensorsWriter([("c", "U8", [1], [4]), ("b", "U8", [1], [4])]).write(to: directory.file(second))
        let error = try refusal { try WeightIndex(directory: directory.path) }
        #expect(error.subject == .tensor("b"))
        #expect(error.file.hasSuffix(second))
        #expect(error.problem.contains("is also in") && error.problem.hasSuffix(first))
    }
}

@Suite struct `An index of shards is refused` {
    @Test(arguments: [
        "../x.safetensors", "/etc/x.safetensors", "a/../../x.safetensors", "sub/x.safetensors", "..", ".", "",
        "..\\\\x.safetensors", "x\\u0000.safetensors", "config.json", "..safetensors", "x.bin",
    ])
    func `when it names a file outside the directory or of another kind`(file: String) throws {
        let directory = try shards([("a", first), ("b", file)])
        let error = try refusal { try WeightIndex(directory: directory.path) }
        #expect(error.file.hasSuffix(WeightIndex.indexName))
        #expect(error.subject == .key("weight_map.b"))
        #expect(error.problem.contains("which is not a plain name ending in .safetensors"))
    }

    @Test func `when it names a file by very many bytes`() throws {
        let directory = try shards([("a", String(repeating: "x", count: 300) + ".safetensors")])
        #expect(try refusal { try WeightIndex(directory: directory.path) }.problem.contains("not a plain name"))
    }

    @Test func `when a shard is missing`() throws {
        let directory = try shards([("a", first), ("d", "model-00003-of-00003.safetensors")])
        let error = try refusal { try WeightIndex(directory: directory.path) }
        #expect(error.file.hasSuffix("model-00003-of-00003.safetensors"))
        #expect(error.problem.contains("cannot be opened"))
    }

    @Test func `when a shard is a link to a directory or to nothing`() throws {
        for (target, problem) in [("/", "is not a regular file"), ("/nowhere/at/all", "cannot be opened")] {
            let directory = try shards([("a", "link.safetensors")])
            try FileManager.default.createSymbolicLink(
                atPath: directory.file("link.safetensors"), withDestinationPath: target)
            let error = try refusal { try WeightIndex(directory: directory.path) }
            #expect(error.file.hasSuffix("link.safetensors"))
            #expect(error.problem.contains(problem))
        }
    }

    @Test func `when a tensor is not in the file it names`() throws {
        for (tensor, file) in [("absent", first), ("a", second)] {
            let directory = try shards([("b", first), ("c", second), (tensor, file)])
            let error = try refusal { try WeightIndex(directory: directory.path) }
            #expect(error.subject == .tensor(tensor))
            #expect(error.file.hasSuffix(file))
            #expect(error.problem.contains("is not in this file"))
        }
    }

    @Test func `when it names a tensor twice`() throws {
        let directory = try shards([("a", first), ("a", second)])
        #expect(
            try refusal { try WeightIndex(directory: directory.path) }.problem.contains(#"the key "a" occurs twice"#))
    }

    @Test(arguments: [
        ("{}", "is missing"), (#"{"weight_map":[]}"#, "is an array of 0 where an object"),
        (#"{"weight_map":{}}"#, "names no tensor"), (#"{"weight_map":{"a":1}}"#, "is 1 where a string is expected"),
        ("[]", "holds an array of 0"), ("", "not strict JSON"), (#"{"weight_map":{"#, "not strict JSON"),
    ])
    func `when it is not a map from tensors to files`(text: String, problem: String) throws {
        let directory = try shards([])
        try directory.write(WeightIndex.indexName, text)
        let error = try refusal { try WeightIndex(directory: directory.path) }
        #expect(error.file.hasSuffix(WeightIndex.indexName))
        #expect(error.problem.contains(problem))
    }
}
