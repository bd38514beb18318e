import Foundation
import Inference
import PrefixStorage
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(15)), .serialized) struct `A damaged block of a prefix cache on disk` {
    private typealias Cache = `A prefix cache on disk`

    @Test(arguments: ["flipped", "cut", "empty", "link", "folder", "other"])
    func `is skipped and removed, and its positions are computed`(damage: String) async throws {
        let directory = Cache.directory()
        defer { Cache.remove(directory) }
        let alone = try await Cache.alone("v32", Cache.request())
        try await Cache.write(directory)
        let names = try Cache.files(directory)
        // The block at positions 32 to 47 has these tokens in its file.
        let tokens: [UInt8] = Cache.request().prompt[32..<48].flatMap { token -> [UInt8] in
            [UInt8(truncatingIfNeeded: token), 0, 0, 0]
        }
        func contents(of name: String) -> [UInt8] {
            [UInt8](FileManager.default.contents(atPath: directory + "/" + name)!)
        }
        let third = try #require(names.first { Array(contents(of: $0)[120..<184]) == tokens })
        let path = directory + "/" + third
        let other = contents(of: names.first { $0 != third }!)
        var bytes = contents(of: third)
        switch damage {
        case "flipped": bytes[bytes.count / 2] ^= 4
        case "cut": bytes.removeLast(1)
        case "empty": bytes = []
        case "other":
            bytes = other
        default: break
        }
        try FileManager.default.removeItem(atPath: path)
        switch damage {
        case "link":
            try Data(bytes).write(to: URL(fileURLWithPath: directory + "/target"))
            try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: directory + "/target")
        case "folder": try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        default: try Data(bytes).write(to: URL(fileURLWithPath: path))
        }
        let server = try Cache.server(directory)
        let (answer, cached) = try await server.answer(Cache.request())
        server.stop()
        #expect(answer == alone && cached == 32)
        let status = server.store.status
        if ["link", "folder"].contains(damage) {
            // They were never listed. A link is replaced, and what it leads to stays.
            #expect(status.damagedBlocks == 0)
            if damage == "link" {
                #expect(try Cache.files(directory) == names)
                #expect(FileManager.default.contents(atPath: directory + "/target") == Data(bytes))
            }
        } else {
            #expect(status.damagedBlocks == 1 && server.lines.all.count == 1, "\(server.lines.all)")
            #expect(server.lines.all.first?.contains(third) == true)
            // The block was computed and written again.
            #expect(try Cache.files(directory) == names)
        }
    }

    @Test func `is removed also if it is the last of a prefix, and written again`() async throws {
        let directory = Cache.directory()
        defer { Cache.remove(directory) }
        let alone = try await Cache.alone("v32", Cache.request())
        try await Cache.write(directory)
        let tokens: [UInt8] = Cache.request().prompt[48..<64].flatMap { [UInt8(truncatingIfNeeded: $0), 0, 0, 0] }
        let paths = try Cache.files(directory).map { directory + "/" + $0 }
        let last = try #require(
            paths.first { Array(FileManager.default.contents(atPath: $0)!)[120..<184].elementsEqual(tokens) })
        let whole = FileManager.default.contents(atPath: last)!
        try whole.dropLast(4).write(to: URL(fileURLWithPath: last))
        let server = try Cache.server(directory)
        let (answer, cached) = try await server.answer(Cache.request())
        server.stop()
        #expect(answer == alone && cached == 48)
        #expect(server.store.status.damagedBlocks == 1, "\(server.lines.all)")
        #expect(FileManager.default.contents(atPath: last) == whole)
    }
}
