import Checkpoints
import Foundation
import Tokenization

/// A directory of this process, for files that are read by their names.
private let directory: URL = {
    let url = FileManager.default.temporaryDirectory.appendingPathComponent("fuzz-\(getpid())")
    try! FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    atexit { try? FileManager.default.removeItem(at: directory) }
    return url
}()

private func write(_ bytes: [UInt8], _ name: String) -> URL {
    let url = directory.appendingPathComponent(name)
    try! Data(bytes).write(to: url)
    return url
}

extension Target {
    /// The header of a weight file: the tensors of an accepted one lie in the file and cover its data.
    ///
    /// The first byte of the input is the length of the data, in units of four bytes; the rest is the header.
    static func safeTensors(_ bytes: [UInt8]) -> CInt {
        guard let quads = bytes.first, bytes.count > 1 else { return 0 }
        let header = bytes.dropFirst()
        let length = (0..<8).map { UInt8(truncatingIfNeeded: header.count >> (8 * $0)) }
        let data = [UInt8](repeating: 1, count: 4 * Int(quads))
        let path = write(length + header + data, "model.safetensors").path
        guard let file = try? SafeTensorsFile(path: path) else { return 0 }
        var sum = 0
        for tensor in file.tensors {
            precondition(tensor.byteCount == tensor.shape.reduce(tensor.type.bytes, *), "a tensor of another size")
            sum += unsafe tensor.bytes.reduce(0) { $0 + Int($1) }
        }
        precondition(sum == data.count, "the tensors do not cover the data once")
        return 0
    }

    /// A tokenizer's file: an accepted one encodes any text, and its control tokens have ids in its vocabulary.
    static func tokenizer(_ bytes: [UInt8]) -> CInt {
        _ = write(bytes, "tokenizer.json")
        guard let tokenizer = try? Tokenizer(directory: directory) else { return 0 }
        for text in [
            "", "The quick brown fox, 1234 times; über\u{301} 漢字\n\n",
            String(decoding: bytes.prefix(64), as: UTF8.self),
        ] {
            let tokens = tokenizer.encode(text, allowingControlTokens: true)
            precondition(tokens.allSatisfy { 0..<tokenizer.vocabularySize ~= Int($0) }, "a token beyond the vocabulary")
            for token in tokens { _ = tokenizer.bytes(of: token) }
        }
        return 0
    }
}
