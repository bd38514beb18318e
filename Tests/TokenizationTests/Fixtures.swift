import Foundation
import JSON
import Testing
import Tokenization

/// Provides the files beside the tests and the tokenizers that many tests share.
enum Fixtures {
    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Fixtures")

    /// Is the demo model's tokenizer, which is small and kept in the repository.
    static let demo = try! Tokenizer(directory: folder.appendingPathComponent("demo"))

    /// Is the released DeepSeek-V3.2 tokenizer.
    static func deepSeekV32() throws -> Tokenizer { try released.get() }

    /// Is the released DeepSeek-V4 tokenizer.
    static func deepSeekV4() throws -> Tokenizer { try releasedV4.get() }

    /// Is the released tokenizer of GLM-4.7 and GLM-5, with GLM-5's template.
    static func glm5() throws -> Tokenizer { try releasedGLM.get() }

    private static let released = Result { try fetched("deepseek-v3.2") }
    private static let releasedV4 = Result { try fetched("deepseek-v4") }
    private static let releasedGLM = Result { try fetched("glm-5") }

    private static func fetched(_ name: String) throws -> Tokenizer {
        let directory = folder.deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent(".fixtures/\(name)")
        guard FileManager.default.fileExists(atPath: directory.appendingPathComponent("tokenizer.json").path) else {
            throw MissingFixture(description: "\(directory.path) is missing; run Scripts/fetch-tokenizers first")
        }
        return try Tokenizer(directory: directory)
    }

    struct MissingFixture: Error, CustomStringConvertible {
        let description: String
    }

    /// Returns the rows of a fixture that is a JSON array.
    static func rows(_ name: String) throws -> [JSONValue] {
        try #require(try JSONValue(parsing: Data(contentsOf: folder.appendingPathComponent(name))).array)
    }

    /// Holds texts with their tokens and words by the reference library; see `Fixtures/MANIFEST.md`.
    static func vectors() throws -> [Vector] {
        try rows("vectors.json").map { row in
            Vector(
                text: try #require(row["text"]?.string), v32: try ids(row["v32"]), v4: try ids(row["v4"]),
                glm: try ids(row["glm"]), demo: try ids(row["demo"]),
                deepSeekWords: try strings(row["deepseekWords"]), glmWords: try strings(row["glmWords"]))
        }
    }

    struct Vector {
        let text: String
        let v32, v4, glm, demo: [Int32]
        let deepSeekWords, glmWords: [String]
    }

    static func ids(_ value: JSONValue?) throws -> [Int32] {
        try #require(value?.array).map { Int32(try #require($0.integer)) }
    }

    static func strings(_ value: JSONValue?) throws -> [String] {
        try #require(value?.array).map { try #require($0.string) }
    }
}

/// Compares strings as code points, because `==` on `String` treats canonically equivalent texts as equal.
func scalars(_ text: String) -> [UInt32] { text.unicodeScalars.map(\.value) }

/// Is a small generator with a seed, so that a failing case can be repeated.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = (state ^ state >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed >> 31
    }
}
