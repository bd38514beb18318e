import Checkpoints
import Foundation
import TestSupport
import Testing

@Suite struct `A safetensors file` {
    @Test func `comes back as it was written`() throws {
        let directory = try TemporaryDirectory()
        var writer = SafeTensorsWriter()
        writer.metadata = ["format": "pt", "note": "a \"quote\" and a \\ and a \n"]
        writer.add("model.embed_tokens.weight", [2, 3], [1, -2, 3.5, 0, 5, 6])
        writer.add("π/\"x\"", "BF16", [2], [0x80, 0x3F, 0x00, 0x40])
        writer.add("scalar", "I8", [], [7])
        writer.add("empty", "F8_E4M3", [0, 5], [])
        let path = directory.file("a.safetensors")
        try writer.write(to: path)

        let file = try SafeTensorsFile(path: path)
        #expect(file.metadata == writer.metadata)
        #expect(file.tensors.map(\.name) == ["model.embed_tokens.weight", "π/\"x\"", "scalar", "empty"])
        let embedding = try #require(file["model.embed_tokens.weight"])
        #expect(embedding.type == .f32)
        #expect(embedding.shape == [2, 3])
        #expect(embedding.elementCount == 6)
        let values = unsafe embedding.bytes.withMemoryRebound(to: Float.self) { unsafe Array($0) }
        #expect(values == [1, -2, 3.5, 0, 5, 6])
        let odd = try #require(file["π/\"x\""])
        #expect(unsafe Array(odd.bytes) == [0x80, 0x3F, 0x00, 0x40])
        #expect(try #require(file["scalar"]).shape == [])
        #expect(try #require(file["empty"]).byteCount == 0)
        #expect(file["absent"] == nil)
    }

    @Test(arguments: StoredType.allCases)
    func `may hold every known element type`(type: StoredType) throws {
        let directory = try TemporaryDirectory()
        let bytes = (0..<type.bytes * 3).map { UInt8($0) }
        let path = directory.file("a.safetensors")
        try SafeTensorsWriter([("a", type.rawValue, [3], bytes)]).write(to: path)
        let tensor = try #require(try SafeTensorsFile(path: path)["a"])
        #expect(tensor.type == type)
        #expect(unsafe Array(tensor.bytes) == bytes)
    }

    @Test func `keeps its mapping as long as one of its tensors lives`() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("a.safetensors")
        try SafeTensorsWriter([("a", "U8", [4], [1, 2, 3, 4])]).write(to: path)
        let tensor = try #require(try SafeTensorsFile(path: path)["a"])
        #expect(unsafe Array(tensor.bytes) == [1, 2, 3, 4])
    }

    @Test func `may list tensors in another order than they are stored`() throws {
        let header =
            #"{"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]},"#
            + #""a":{"shape":[2],"data_offsets":[0,2],"dtype":"U8"}}"#
        let directory = try TemporaryDirectory()
        let path = try directory.write(
            "a.safetensors", SafeTensorsWriter.encoded(header: header + "   ", data: [1, 2, 3, 4]))
        let file = try SafeTensorsFile(path: path)
        #expect(unsafe Array(try #require(file["a"]).bytes) == [1, 2])
        #expect(unsafe Array(try #require(file["b"]).bytes) == [3, 4])
    }

    @Test func `without tensors is a valid file`() throws {
        let directory = try TemporaryDirectory()
        let path = try directory.write("a.safetensors", SafeTensorsWriter.encoded(header: "{}"))
        #expect(try SafeTensorsFile(path: path).tensorCount == 0)
    }

    @Test func `may have many tensors`() throws {
        var writer = SafeTensorsWriter()
        for index in 0..<20_000 { writer.add("layers.\(index).weight", "U8", [1], [UInt8(index % 251)]) }
        let directory = try TemporaryDirectory()
        let path = directory.file("a.safetensors")
        try writer.write(to: path)
        let file = try SafeTensorsFile(path: path)
        #expect(file.tensorCount == 20_000)
        #expect(unsafe try #require(file["layers.19999.weight"]).bytes[0] == UInt8(19_999 % 251))
    }
}
