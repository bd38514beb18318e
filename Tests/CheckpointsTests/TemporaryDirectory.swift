import Checkpoints
import Foundation
import Testing

/// Creates a directory for one test, and removes it with everything in it when the test is over.
final class TemporaryDirectory {
    let path: String

    init() throws {
        path = NSTemporaryDirectory() + "braid-checkpoints-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { path + "/" + name }

    @discardableResult
    func write(_ name: String, _ bytes: [UInt8]) throws -> String {
        // Not by `Data.write`, which waits for the disk: thousands of files are written.
        let stream = try unsafe #require(fopen(file(name), "w"))
        let written = unsafe fwrite(bytes, 1, bytes.count, stream)
        try #require(unsafe fclose(stream) == 0 && written == bytes.count)
        return file(name)
    }

    @discardableResult
    func write(_ name: String, _ text: String) throws -> String { try write(name, Array(text.utf8)) }
}

/// Requires that `body` is refused, and returns why.
func refusal<Result>(
    sourceLocation: SourceLocation = #_sourceLocation, _ body: () throws -> Result
) throws -> CheckpointError {
    let error = #expect(throws: CheckpointError.self, sourceLocation: sourceLocation) { _ = try body() }
    return try #require(error, sourceLocation: sourceLocation)
}

/// Requires that a safetensors file of these bytes is refused with a message that names the file, the tensor if one is
/// given, and the problem.
func expectRefused(
    _ bytes: [UInt8], tensor: String? = nil, _ problem: String, sourceLocation: SourceLocation = #_sourceLocation
) throws {
    let directory = try TemporaryDirectory()
    let path = try directory.write("bad.safetensors", bytes)
    let error = try refusal(sourceLocation: sourceLocation) { try SafeTensorsFile(path: path) }
    #expect(error.file == path, sourceLocation: sourceLocation)
    #expect(error.subject == tensor.map { .tensor($0) } ?? .file, sourceLocation: sourceLocation)
    #expect(error.problem.contains(problem), sourceLocation: sourceLocation)
    #expect(error.description.contains("bad.safetensors"), sourceLocation: sourceLocation)
    #expect(!error.advice.isEmpty, sourceLocation: sourceLocation)
}
