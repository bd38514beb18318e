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
        ("[]", "holds an array of 0"), ("", "invalid JSON"), (#"{"weight_map":{"#, "invalid JSON"),
    ])
    func `when it is not a map from tensors to files`(text: String, problem: String) throws {
        let directory = try shards([])
        try directory.write(WeightIndex.indexName, text)
        let error = try refusal { try WeightIndex(directory: directory.path) }
        #expect(error.file.hasSuffix(WeightIndex.indexName))
        #expect(error.problem.contains(problem))
    }
}

@Suite struct `Reading weights ahead` {
    private static let bytes = 4096 * 4096

    /// A directory with two files, and its index.
    private static func index(_ directory: TemporaryDirectory) throws -> WeightIndex {
        for name in ["x", "y"] {
            try SafeTensorsWriter([(name, "U8", [bytes], [UInt8](repeating: 7, count: bytes))])
                .write(to: directory.file("\(name).safetensors"))
        }
        return try WeightIndex(directory: directory.path)
    }

    @Test func `reports how far it is, and that it is done`() throws {
        let directory = try TemporaryDirectory()
        var fractions: [Double] = []
        try Self.index(directory).preload { fractions.append($0) }
        #expect(fractions.count == 2 && abs(fractions[0] - 0.5) < 0.01 && fractions[1] == 1)
    }

    #if os(Linux)
        /// Page faults of this thread while it reads a byte of every page of all tensors.
        private static func faults(reading index: WeightIndex) throws -> Int {
            func faults() -> Int {
                var usage = rusage()
                // RUSAGE_THREAD, which Swift does not know.
                precondition(unsafe getrusage(1, &usage) == 0, "a thread knows its page faults")
                return usage.ru_minflt + usage.ru_majflt
            }
            let before = faults()
            var sum = 0
            for name in index.names {
                let tensor = try index.tensor(named: name)
                for place in stride(from: 0, to: tensor.byteCount, by: 4096) { sum += Int(unsafe tensor.bytes[place]) }
            }
            #expect(sum == 7 * 2 * bytes / 4096)
            return faults() - before
        }

        @Test func `leaves no page to be faulted in by the first request`() throws {
            let directory = try TemporaryDirectory()
            let index = try Self.index(directory)
            try index.preload()
            let found = try Self.faults(reading: index)
            let without = try Self.faults(reading: WeightIndex(directory: directory.path))
            #expect(found * 8 < without, "or nothing was read ahead")
        }

        @Test func `notices that a file has become shorter, instead of ending the process`() throws {
            let directory = try TemporaryDirectory()
            let index = try Self.index(directory)
            let path = directory.file("y.safetensors")
            try #require(unsafe truncate(path, 4096) == 0)
            let error = try refusal { try index.preload() }
            #expect(error.file == path)
            #expect(error.problem.contains("cannot be read"))
        }
    #endif
}
