import Checkpoints
import Foundation
import TestSupport
import Testing

/// A file whose one tensor `a.weight` has the given fields.
private func one(
    dtype: String = #""U8""#, shape: String = "[4]", offsets: String = "[0,4]", data: Int = 4
) -> [UInt8] {
    SafeTensorsWriter.encoded(
        header: #"{"a.weight":{"dtype":\#(dtype),"shape":\#(shape),"data_offsets":\#(offsets)}}"#,
        data: [UInt8](repeating: 0, count: data))
}

/// A file of bytes with tensors `a` and `b` at the given offsets.
private func two(_ a: (Int, Int), _ b: (Int, Int), data: Int) -> [UInt8] {
    func entry(_ range: (Int, Int)) -> String {
        #"{"dtype":"U8","shape":[\#(range.1 - range.0)],"data_offsets":[\#(range.0),\#(range.1)]}"#
    }
    return SafeTensorsWriter.encoded(
        header: #"{"a":\#(entry(a)),"b":\#(entry(b))}"#, data: [UInt8](repeating: 0, count: data))
}

@Suite struct `A safetensors header is refused` {
    @Test(arguments: 0..<8)
    func `when the file is shorter than a header length`(size: Int) throws {
        try expectRefused([UInt8](repeating: 1, count: size), "has \(size) bytes, fewer than the 8")
    }

    @Test func `when its length is zero`() throws {
        try expectRefused(SafeTensorsWriter.encoded(header: "", data: [1, 2]), "the header length is 0")
    }

    @Test(arguments: [100_000_001, UInt64(Int64.max), UInt64(Int64.max) + 1, UInt64.max - 7, UInt64.max])
    func `when its length is over 100 MB`(length: UInt64) throws {
        try expectRefused(
            SafeTensorsWriter.encoded(header: "{}", headerLength: length),
            "the header length \(length) is more than the limit of 100000000")
    }

    @Test(arguments: [UInt64(3), 1000, 100_000_000])
    func `when its length reaches beyond the file`(length: UInt64) throws {
        try expectRefused(
            SafeTensorsWriter.encoded(header: "{}", headerLength: length), "reaches beyond the file's 10 bytes")
    }

    @Test(arguments: [" {}", "[]", "\"a\"", "\u{FEFF}{}", "\0{}"])
    func `when it does not begin with a brace`(header: String) throws {
        try expectRefused(SafeTensorsWriter.encoded(header: header), "does not begin with {")
    }

    @Test func `when it is not UTF-8`() throws {
        let invalid: [[UInt8]] = [[0xFF], [0xC0, 0x80], [0xED, 0xA0, 0x80], [0xE2, 0x82], [0xF5, 0x80, 0x80, 0x80]]
        for bytes in invalid {
            let header = Array(#"{"__metadata__":{"a":""#.utf8) + bytes + Array(#""}}"#.utf8)
            try expectRefused(SafeTensorsWriter.encoded(header: header), "byte 22: the text is not valid UTF-8")
        }
    }

    @Test(arguments: [
        ("{", "expected a key in quotes, found the end"), ("{,}", "expected a key in quotes"),
        ("{a:1}", "expected a key in quotes"), ("{'a':{}}", "expected a key in quotes"),
        (#"{"__metadata__"}"#, "expected a colon"), (#"{"__metadata__":{}"#, "expected a comma or the end"),
        (#"{"__metadata__":{},}"#, "expected a key in quotes"), (#"{"__metadata__":{} "b"}"#, "expected a comma"),
        (#"{"abc"#, "a string does not end"), (#"{"abc\"#, "a string does not end"),
        (#"{"\x":{}}"#, "an escape that JSON does not have"), (#"{"\u12G4":{}}"#, "four hexadecimal digits"),
        (#"{"\ud800":{}}"#, "surrogate"), (#"{"\udc00\ud800":{}}"#, "surrogate"),
        (#"{"\ud800\u0041":{}}"#, "surrogate"),
        ("{\"a\nb\":{}}", "control character stands unescaped"),
    ])
    func `when it is not JSON`(header: String, problem: String) throws {
        try expectRefused(SafeTensorsWriter.encoded(header: header), problem)
    }

    @Test(arguments: ["{}{}", "{}x", "{} \n", "{}\t", "{}\0", "{} ,", "{}}"])
    func `when anything but spaces follows it`(header: String) throws {
        try expectRefused(SafeTensorsWriter.encoded(header: header), "something follows the end")
    }

    @Test(arguments: [
        (#"{"format":1}"#, #"expected a string for "format" of __metadata__, found "1}}""#),
        (#"{"format":null}"#, #"expected a string for "format""#), (#"{"x":{"y":"z"}}"#, #"expected a string for "x""#),
        ("[]", "expected an object"), (#""pt""#, "expected an object"),
        (#"{"a":"b","a":"b"}"#, #"the key "a" of __metadata__ occurs twice"#),
    ])
    func `when its metadata is not strings`(metadata: String, problem: String) throws {
        try expectRefused(SafeTensorsWriter.encoded(header: #"{"__metadata__":\#(metadata)}"#), problem)
    }

    @Test func `when metadata occurs twice`() throws {
        try expectRefused(
            SafeTensorsWriter.encoded(header: #"{"__metadata__":{},"__metadata__":{}}"#),
            "the key __metadata__ occurs twice")
    }

    @Test func `when it has more tensors than any model`() throws {
        var header = "{"
        for index in 0...500_000 {
            header += #"\#(index == 0 ? "" : ",")"\#(index)":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#
        }
        try expectRefused(
            SafeTensorsWriter.encoded(header: header + "}"), tensor: "500000", "the file has more than 500000 tensors")
    }
}

@Suite struct `A tensor's entry is refused` {
    @Test func `when its name occurs twice, also in another spelling`() throws {
        let entry = #"{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#
        for second in ["ab", #"\u0061b"#] {
            try expectRefused(
                SafeTensorsWriter.encoded(header: #"{"ab":\#(entry),"\#(second)":\#(entry)}"#), tensor: "ab",
                "the name occurs twice")
        }
    }

    @Test(arguments: ["a\\u0000b", "a\\nb", "a\\u001bb", "a\u{7F}b", "a\u{9B}b"])
    func `when its name holds a control character`(name: String) throws {
        let directory = try TemporaryDirectory()
        let path = try directory.write(
            "bad.safetensors",
            SafeTensorsWriter.encoded(header: #"{"\#(name)":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#))
        let error = try refusal { try SafeTensorsFile(path: path) }
        #expect(error.problem.contains("the tensor name holds a control character"))
        #expect(
            error.description.unicodeScalars.allSatisfy {
                !(0..<0x20).contains($0.value) && !(0x7F...0x9F).contains($0.value)
            })
    }

    @Test func `when its name is empty or very long`() throws {
        for length in [0, 1025, 1_000_000] {
            let name = String(repeating: "n", count: length)
            let bytes = SafeTensorsWriter([(name, "U8", [1], [0])]).encoded()
            try expectRefused(bytes, tensor: name, "a tensor name has \(length) bytes; 1 to 1024 are allowed")
        }
    }

    @Test func `with a message of one short line, however long its name`() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("bad.safetensors")
        try SafeTensorsWriter([(String(repeating: "n", count: 1_000_000), "U8", [1], [0])]).write(to: path)
        let error = try refusal { try SafeTensorsFile(path: path) }
        #expect(error.description.count < path.count + 500)
        #expect(!error.description.contains("\n"))
    }

    @Test(arguments: ["\"F4\"", "\"f32\"", "\"\"", "\"BF16 \"", "\"F8_E4M3FNUZ\""])
    func `when its type is unknown`(dtype: String) throws {
        try expectRefused(one(dtype: dtype), tensor: "a.weight", "dtype \(dtype) is unknown (known: F64, F32")
    }

    @Test(arguments: ["8", "null", "[\"U8\"]", "{}"])
    func `when its type is not a string`(dtype: String) throws {
        try expectRefused(one(dtype: dtype), tensor: "a.weight", "expected a string")
    }

    @Test(arguments: [
        ("[-4]", "shape: -4 is negative"), ("[4.0]", "shape: 4.0 is not a whole number"),
        ("[4e0]", "shape: 4e0 is not a whole number"), ("[-0]", "shape: -0 is not a whole number"),
        ("[9223372036854775808]", "shape: 9223372036854775808 is not a whole number from 0 to 2^63 − 1"),
        ("[1e400]", "too large"), ("[\"4\"]", "shape: expected a whole number, found"),
        ("[04]", "superfluous zero"), ("[+4]", "expected a whole number"), ("[NaN]", "expected a whole number"),
        ("[[4]]", "expected a whole number"), ("[4,]", "expected a whole number"),
        ("[4", "shape: expected a whole number"), ("[4;", "expected a comma"),
        ("4", "expected an array for shape"), ("null", "expected an array for shape"),
        ("[.5]", "expected a whole number"),
        ("[4.]", "expected a number"), ("[true]", "expected a whole number"),
        ("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,4]", "shape has more than 16 numbers"),
    ])
    func `when its shape is not made of whole numbers`(shape: String, problem: String) throws {
        try expectRefused(one(shape: shape), tensor: "a.weight", problem)
    }

    @Test(arguments: [
        "[4194305,4194305,211106198978564]", "[9223372036854775807,2]", "[9223372036854775807,9223372036854775807]",
        "[4611686018427387904,4]", "[4294967296,4294967296]",
    ])
    func `when its shape overflows`(shape: String) throws {
        try expectRefused(one(shape: shape), tensor: "a.weight", "overflows 64 bits")
    }

    @Test func `when only its size in bytes overflows`() throws {
        try expectRefused(
            one(dtype: "\"F64\"", shape: "[2305843009213693952]"), tensor: "a.weight", "overflows 64 bits")
    }

    @Test(arguments: [
        ("[4,0]", "end before they begin"), ("[-4,0]", "data_offsets: -4 is negative"),
        ("[0,-4]", "data_offsets: -4 is negative"), ("[0,4.5]", "data_offsets: 4.5 is not a whole number"),
        ("[0,5]", "lie outside the file, which holds 4 bytes"), ("[4,8]", "lie outside the file"),
        ("[0,9223372036854775807]", "lie outside the file"),
        ("[9223372036854775804,9223372036854775807]", "lie outside"),
        ("[0,18446744073709551615]", "is not a whole number"),
        ("[0,3]", "takes 4 bytes, but data_offsets [0, 3] hold 3"),
        ("[0]", "data_offsets has 1 numbers instead of 2"), ("[]", "data_offsets has 0 numbers instead of 2"),
        ("[0,4,8]", "data_offsets has more than 2 numbers"), ("\"0,4\"", "expected an array for data_offsets"),
    ])
    func `when its offsets are wrong`(offsets: String, problem: String) throws {
        try expectRefused(one(offsets: offsets), tensor: "a.weight", problem)
    }

    @Test func `when its length is not that of its shape`() throws {
        try expectRefused(
            one(dtype: "\"F32\"", shape: "[2,2]"), tensor: "a.weight",
            "shape [2, 2] of F32 takes 16 bytes, but data_offsets [0, 4] hold 4")
    }

    @Test(arguments: ["F64", "F32", "BF16"])
    func `when its values are not aligned for their type`(type: String) throws {
        let size = try #require(StoredType(rawValue: type)).bytes
        let bytes = SafeTensorsWriter([
            ("byte", "U8", [1], [0]), ("late", type, [1], [UInt8](repeating: 0, count: size)),
        ]).encoded()
        try expectRefused(bytes, tensor: "late", "which is not a multiple of the \(size) bytes of \(type)")
    }

    @Test func `when it overlaps another`() throws {
        try expectRefused(two((0, 4), (2, 6), data: 6), tensor: "b", #"overlaps tensor "a", which ends at byte 4"#)
        try expectRefused(two((0, 4), (0, 4), data: 4), tensor: "b", #"overlaps tensor "a""#)
        try expectRefused(two((0, 6), (1, 2), data: 6), tensor: "b", #"overlaps tensor "a""#)
    }

    @Test func `when it is empty but lies inside another`() throws {
        try expectRefused(two((0, 4), (2, 2), data: 4), tensor: "b", #"overlaps tensor "a""#)
    }

    @Test func `when there is a hole before it`() throws {
        try expectRefused(two((0, 4), (5, 8), data: 8), tensor: "b", #"leaves a hole of 1 bytes after tensor "a""#)
        try expectRefused(
            two((1, 4), (4, 8), data: 8), tensor: "a", "leaves a hole of 1 bytes after the start of the data")
    }

    @Test func `when bytes are left over after the last`() throws {
        try expectRefused(two((0, 4), (4, 8), data: 11), "3 of 11 bytes of data belong to no tensor")
        try expectRefused(
            SafeTensorsWriter.encoded(header: "{}", data: [0]), "1 of 1 bytes of data belong to no tensor")
    }

    @Test func `when the file has been cut off`() throws {
        var bytes = SafeTensorsWriter([("a", "U8", [4], [1, 2, 3, 4])]).encoded()
        bytes.removeLast()
        try expectRefused(bytes, tensor: "a", "lie outside the file, which holds 3 bytes of data")
    }

    @Test(arguments: [
        (#"{"shape":[0],"data_offsets":[0,0]}"#, "the entry lacks dtype"),
        (#"{"dtype":"U8","data_offsets":[0,0]}"#, "the entry lacks shape"),
        (#"{"dtype":"U8"}"#, "the entry lacks shape and data_offsets"), ("{}", "the entry is empty"),
        (#"{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}"#, "the key dtype occurs twice"),
        (#"{"dtype":"U8","shape":[0],"shape":[0],"data_offsets":[0,0]}"#, "the key shape occurs twice"),
        (#"{"dtype":"U8","shape":[0],"data_offsets":[0,0],"data_offsets":[0,0]}"#, "the key data_offsets occurs twice"),
        (#"{"dtype":"U8","shape":[0],"data_offsets":[0,0],"strides":[1]}"#, #"the field "strides" is unknown"#),
        ("[]", "expected an object"), ("7", "expected an object"),
    ])
    func `when its fields are not the three that belong there`(entry: String, problem: String) throws {
        try expectRefused(SafeTensorsWriter.encoded(header: #"{"a.weight":\#(entry)}"#), tensor: "a.weight", problem)
    }
}

@Suite struct `A path is refused` {
    @Test func `when there is no such file`() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("absent.safetensors")
        let error = try refusal { try SafeTensorsFile(path: path) }
        #expect(error.description.contains("absent.safetensors: cannot be opened: No such file"))
    }

    @Test func `when it is a directory, also behind a symbolic link`() throws {
        let directory = try TemporaryDirectory()
        let link = directory.file("link.safetensors")
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: directory.path)
        for path in [directory.path, link] {
            #expect(try refusal { try SafeTensorsFile(path: path) }.problem == "is not a regular file")
        }
    }

    @Test(.timeLimit(.minutes(15)))
    func `when it is a pipe, without waiting for a writer`() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("pipe.safetensors")
        try #require(unsafe mkfifo(path, 0o600) == 0)
        #expect(try refusal { try SafeTensorsFile(path: path) }.problem == "is not a regular file")
    }

    @Test func `when it holds a NUL`() throws {
        let error = try refusal { try SafeTensorsFile(path: "a.safetensors\0.txt") }
        #expect(error.problem == "the path holds a NUL")
    }
}
