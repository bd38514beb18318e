import Foundation
import HTTPTypes
import Inference
import JSON
import NIOCore
import ServerTesting
import Serving
import TestSupport
import Testing

/// Tests of bodies that are packed with gzip.
@Suite struct GzipTests {
    /// The text in the packed bodies.
    private static let text = (0..<60).map { "word\($0 % 37)-\($0 * 7919 % 1000)" }.joined(separator: " ")

    /// The same request, packed by zlib with codes of its own, with the fixed codes, not at all, and in three members, of
    /// which one is empty.
    private static let packed = [
        "dynamic":
            """
            H4sIAAAAAAACA0XSy2rDMBCF4VcJXveA5qaR+jLB0FBKmwtJIIGQd6+jiaWVD174s/X7MV139+v0uZlux/NXQtq8roRKtS1GkdKW
            wM3bUmTPbRmsWlsZRtqWQ0XaKhDjtirYKZ6cQPWNECiFQgwOhQRVgyFFyeGQwUtAlOEpJHJkDooKTMOiCs2BcYKUwJjA9f1JC0ah
            sYAkNFZYYGyoHhhnlBoYOwoFxgUugXFFtsAkwTwwIWgJTBia3gcoEA5MFKyhiYFyaLJogS3vvXZgXjsorR1y6h1q71B6B+8dcu9g
            vYOODtI7EK8dhHoHS6NDHR3K6OCjQx4dbHTQ0UHWDpK4d2CaPjbTZd6f/n4O39vTfJ73l+VvfEz7+b497G7b6/F3d3jdoufzH1uY
            pOCtAgAA
        """,
        "fixed":
            """
            H4sIAAAAAAACA6tWKkmtKFGyUlAqzy9KMdA1UADRhrqWhpZglpGuhbEFmGWsa25qDmaZ6JqZm4FZprqmlqZglpmuqaEJmGWua2Js
            DGZZ6BqbGoFZlrpG5oYQkw10DS2hlhjqGhpAbDE00jWC2GJorGtpArHG0ETXwgxij6GprrkFxCJDM11zA4hNhua6ZkYQqwwtdE1N
            IHYZWuqamEEsMzLQNbaAWGZkqGtkCfUS0DJDiG1GxrqGxhDbjEx0TSGWGZnqWppDLDMy07WwhFhmZK5rYQixzMhC19wYYpmRpa6Z
            KcQyYwNdU3OIZcaGuiYWEMuMjXRNDKABaKxrbASxzNhE18gEYpuxqa6hGcQ2Y6BtEMuA7obFg5ERLB5MDGHxYGYAjwdLeDxYwOPB
            HB4PZvB4MIXHgwkiHozh8WBoBIsHY0N4PJgaIOLBEhEPFoh4MEfEgxkiHkwR8WCCiAdjWDwYGxjB48HIUElHQak4MbcgJzMvPb4g
            sSgxtxiYGquVchMr4vNSy+NL8rNT80BChrW1AFuYpOCtAgAA
        """,
        "stored":
            """
            H4sIAAAAAAAEAwGtAlL9eyJ0ZXh0IjogIndvcmQwLTAgd29yZDEtOTE5IHdvcmQyLTgzOCB3b3JkMy03NTcgd29yZDQtNjc2IHdv
            cmQ1LTU5NSB3b3JkNi01MTQgd29yZDctNDMzIHdvcmQ4LTM1MiB3b3JkOS0yNzEgd29yZDEwLTE5MCB3b3JkMTEtMTA5IHdvcmQx
            Mi0yOCB3b3JkMTMtOTQ3IHdvcmQxNC04NjYgd29yZDE1LTc4NSB3b3JkMTYtNzA0IHdvcmQxNy02MjMgd29yZDE4LTU0MiB3b3Jk
            MTktNDYxIHdvcmQyMC0zODAgd29yZDIxLTI5OSB3b3JkMjItMjE4IHdvcmQyMy0xMzcgd29yZDI0LTU2IHdvcmQyNS05NzUgd29y
            ZDI2LTg5NCB3b3JkMjctODEzIHdvcmQyOC03MzIgd29yZDI5LTY1MSB3b3JkMzAtNTcwIHdvcmQzMS00ODkgd29yZDMyLTQwOCB3
            b3JkMzMtMzI3IHdvcmQzNC0yNDYgd29yZDM1LTE2NSB3b3JkMzYtODQgd29yZDAtMyB3b3JkMS05MjIgd29yZDItODQxIHdvcmQz
            LTc2MCB3b3JkNC02Nzkgd29yZDUtNTk4IHdvcmQ2LTUxNyB3b3JkNy00MzYgd29yZDgtMzU1IHdvcmQ5LTI3NCB3b3JkMTAtMTkz
            IHdvcmQxMS0xMTIgd29yZDEyLTMxIHdvcmQxMy05NTAgd29yZDE0LTg2OSB3b3JkMTUtNzg4IHdvcmQxNi03MDcgd29yZDE3LTYy
            NiB3b3JkMTgtNTQ1IHdvcmQxOS00NjQgd29yZDIwLTM4MyB3b3JkMjEtMzAyIHdvcmQyMi0yMjEiLCAic2FtcGxpbmdfcGFyYW1z
            IjogeyJtYXhfbmV3X3Rva2VucyI6IDF9fVuYpOCtAgAA
        """,
        "members":
            """
            H4sIAAAAAAACAy3NQQoCQQxE0asMvS/oSjpJx/M4a0EGFLy8mLiqt6r/Gdf5vsbtGK/H8z4xj98SySwJtu6SIixKCx5eMlhayWFc
            pcBSLW2oSSkhwX6eYP4jBGdXKJCuUJGrM1zY3h0aYneIjphdYsClU/wC+DreL8gAAAAfiwgAAAAAAAIDAwAAAAAAAAAAAB+LCAAA
            AAAAAgNF0dtKw0AUheFXCbl2wezT7BlfJgQsIpq0tEIL0nc3uqK9+5lcfDNZDeE6XI/nF+nwKr+pBdYKU6C9MxUqjWkQS6YjKivQ
            M5gVrTsz0cSYDWnEtKMGMSuIJGYCb8RM4YWYGUyJmUOdmgWkUrNNI7bdm29B1x3aPu0OspJx1KQSiE6kIoRGwo1EgwWFDk0KUiB9
            RwQi+79TGBUx9CAjjlbpSCAbIanIQkkSVUlJ23aIxw7+2MH+drCi/zuojE/DeJmX08fb+jqd5vO8XMbn4Wtc5tu0Hq7T5/H9sP4c
            yf3+DVpBmNblAQAA
        """,
    ]

    private static func bytes(_ name: String) throws -> [UInt8] {
        let text = try #require(packed[name])
        return Array(try #require(Data(base64Encoded: text, options: .ignoreUnknownCharacters)))
    }

    private static func post(
        _ server: ToyServer, _ body: [UInt8], coding: String = "gzip"
    ) async throws -> Reply {
        Reply(
            try await RouteClient(server.application).execute(
                uri: "/generate", method: .post, headers: [.contentEncoding: coding], body: ByteBuffer(bytes: body)))
    }

    @Test(arguments: ["dynamic", "fixed", "stored", "members"]) func `are read`(name: String) async throws {
        let server = ToyServer("x")
        let reply = try await Self.post(server, Self.bytes(name))
        #expect(reply.status == 200, "\(reply.text)")
        #expect(server.engine.received.first?.prompt == [0] + ToyTokenizer.tokens(Self.text))
    }

    @Test(arguments: ["dynamic", "fixed", "stored"])
    func `are refused if they are damaged, wherever that is`(name: String) async throws {
        let server = ToyServer("x")
        let body = try Self.bytes(name)
        // The fields of the header from byte 4 to 9 (time, system) do not matter.
        for place in Array(0..<4) + Array(stride(from: 11, to: body.count, by: 3)) + [body.count - 1] {
            var damaged = body
            damaged[place] ^= 0x10
            let reply = try await Self.post(server, damaged)
            #expect(reply.status == 400, "\(place): \(reply.text)")
        }
        for length in [0, 1, 17, 18, body.count / 2, body.count - 1] {
            #expect(try await Self.post(server, Array(body.prefix(length))).status == 400)
        }
        #expect(try await Self.post(server, body + [0]).status == 400)
        for length in [10, 18, body.count - 1] {
            #expect(try await Self.post(server, body + body.prefix(length)).status == 400, "a second member is cut")
        }
        #expect(server.engine.received.isEmpty)
    }

    /// Returns a body that unpacks to `count` times 258 equal bytes: one letter, and references to the byte before.
    private static func bomb(_ count: Int) -> [UInt8] {
        var (bytes, bits, size): ([UInt8], UInt32, UInt32) = ([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0], 0, 0)
        func write(_ value: UInt32, _ width: UInt32) {
            bits |= value << size
            size += width
            while size >= 8 {
                bytes.append(UInt8(bits & 0xFF))
                bits >>= 8
                size -= 8
            }
        }
        // The last block, with fixed codes; the codes are written from their highest bit on.
        write(0b011, 3)
        write(0b0001_0101, 8)
        for _ in 0..<count {
            write(0b1010_0011, 8)
            write(0, 5)
        }
        write(0, 7)
        write(0, 8)
        return bytes + Array(repeating: 0, count: 8)
    }

    @Test func `cannot take more memory than bodies may`() async throws {
        var server = ToyServer("x")
        server.configuration.maxBodyBytes = 1 << 20
        let small = try await Self.post(server, Self.bomb(10))
        #expect(small.status == 400, "its sum is wrong: \(small.text)")
        let large = Self.bomb(100_000)
        #expect(large.count < 1 << 20)
        let reply = try await Self.post(server, large)
        #expect(reply.status == 413 && reply.message.contains("unpacked"), "\(reply.text)")
    }

    @Test func `have no other coding`() async throws {
        for coding in ["br", "deflate", "gzip, gzip"] {
            #expect(try await Self.post(ToyServer("x"), [1, 2, 3], coding: coding).status == 415)
        }
        #expect(try await Self.post(ToyServer("x"), Array(#"{"text":"a"}"#.utf8), coding: "identity").status == 200)
    }
}
