import Dispatch
import Foundation
import Synchronization

/// Identifies a set of files by their names, sizes and contents.
///
/// It is SHA-256 over the digests of the files' blocks, so that blocks can be read in parallel.
package struct ContentDigest: Sendable, Equatable, CustomStringConvertible {
    /// Says how much of a file is read.
    package enum Coverage: Sendable {
        /// Reads 16 pieces of 4 KB, spread evenly. That notices another download or another build at every start, but
        /// misses most damage in between.
        case samples
        case everyByte
    }

    private let coverage: Coverage
    private var sum = SHA256()
    private static let samples = 16
    private static let sampleBytes = 4096
    private static let blockBytes = 32 << 20
    private static let readBytes = 1 << 20

    package init(_ coverage: Coverage = .samples) { self.coverage = coverage }

    /// Digests the files of a model directory that decide what the model computes.
    ///
    /// - Parameter isWhole: whether the weights are included.
    package init(
        model directory: String, weights isWhole: Bool, _ coverage: Coverage = .samples
    ) throws(CheckpointError) {
        self.init(coverage)
        let names: [String]
        do {
            names = try FileManager.default.contentsOfDirectory(atPath: directory)
        } catch {
            throw CheckpointError(
                file: directory, problem: "cannot be listed as a directory",
                advice: "give the path of a model directory that may be read")
        }
        let wanted = names.filter { name in
            name == "config.json" || name.hasPrefix("tokenizer") || isWhole && name.hasSuffix(".safetensors")
        }
        for name in wanted.sorted() { try add(directory + "/" + name, as: name) }
    }

    package mutating func add(_ path: String, as name: String) throws(CheckpointError) {
        let file = try RegularFile(opening: path)
        mix(UInt64(name.utf8.count))
        sum.update(Array(name.utf8))
        mix(UInt64(file.size))
        for digest in try Self.digests(of: Self.parts(of: file.size, coverage), in: file) { sum.update(digest) }
    }

    private mutating func mix(_ number: UInt64) {
        sum.update((0..<8).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) })
    }

    /// Returns the byte ranges to read, each of which has its own digest.
    private static func parts(of size: Int, _ coverage: Coverage) -> [Range<Int>] {
        switch coverage {
        case .everyByte:
            return stride(from: 0, to: size, by: blockBytes).map { $0..<min($0 + blockBytes, size) }
        case .samples:
            let last = max(size - sampleBytes, 0)
            let starts = Set((0..<samples).map { last * $0 / (samples - 1) }).sorted()
            return starts.map { $0..<min($0 + sampleBytes, size) }
        }
    }

    /// Returns the digests of parts of a file, read by as many threads as there are processors.
    private static func digests(
        of parts: [Range<Int>], in file: borrowing RegularFile
    ) throws(CheckpointError) -> [[UInt8]] {
        let descriptor = file.sharedDescriptor
        let results = Mutex([Result<[UInt8], CheckpointError>?](repeating: nil, count: parts.count))
        let path = file.path
        DispatchQueue.concurrentPerform(iterations: parts.count) { index in
            let result = Result { () throws(CheckpointError) in
                try digest(of: parts[index], descriptor: descriptor, path: path)
            }
            results.withLock { $0[index] = result }
        }
        var digests: [[UInt8]] = []
        for result in results.withLock({ $0 }) { digests.append(try result!.get()) }
        return digests
    }

    private static func digest(
        of part: Range<Int>, descriptor: Int32, path: String
    ) throws(CheckpointError) -> [UInt8] {
        var sum = SHA256()
        var at = part.lowerBound
        while at < part.upperBound {
            let piece = try RegularFile.read(
                at..<min(at + readBytes, part.upperBound), descriptor: descriptor, path: path)
            sum.update(piece)
            at += piece.count
        }
        return sum.finish()
    }

    /// The first 32 hexadecimal digits, which are half of SHA-256's.
    package var description: String {
        sum.finish().prefix(16).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    package static func == (left: ContentDigest, right: ContentDigest) -> Bool {
        left.sum.finish() == right.sum.finish()
    }
}
