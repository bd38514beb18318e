import Foundation

/// A number that tells one set of files from another by their names, their sizes and samples of what is in them.
///
/// It notices mistakes (another download, another build, a damaged copy), not malice: FNV-1a over a few pages a file.
package struct ContentDigest: Sendable, Equatable, CustomStringConvertible {
    private var value: UInt64 = 0xcbf2_9ce4_8422_2325
    /// Of a file, spread evenly from its first byte to its last.
    private static let samples = 16
    private static let sampleBytes = 4096

    package init() {}

    /// The files of a model directory that decide what it computes.
    ///
    /// - Parameter isWhole: whether the weights count too.
    package init(model directory: String, weights isWhole: Bool) throws(CheckpointError) {
        self.init()
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
        guard let file = FileHandle(forReadingAtPath: path), let size = try? file.seekToEnd() else {
            throw CheckpointError(
                file: path, problem: "cannot be read", advice: "check that the file is there and may be read")
        }
        defer { try? file.close() }
        mix(name.utf8)
        mix((0..<8).map { UInt8(truncatingIfNeeded: size >> (8 * $0)) })
        let last = size > UInt64(Self.sampleBytes) ? size - UInt64(Self.sampleBytes) : 0
        for sample in 0..<UInt64(Self.samples) {
            try? file.seek(toOffset: last / UInt64(Self.samples - 1) * sample)
            mix((try? file.read(upToCount: Self.sampleBytes)) ?? Data())
            if last == 0 { break }
        }
    }

    private mutating func mix(_ bytes: some Sequence<UInt8>) {
        for byte in bytes { value = (value ^ UInt64(byte)) &* 0x100_0000_01b3 }
    }

    /// Sixteen digits.
    package var description: String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
