import Foundation
import Grammar
import Testing
import Tokenization

enum Fixtures {
    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Fixtures")
    private static let fetched = folder.deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent(".fixtures")

    struct MissingFixture: Error, CustomStringConvertible {
        let description: String
    }

    /// Is a directory that a script downloads before tests run.
    static func fetched(_ name: String, by script: String) throws -> URL {
        let folder = fetched.appendingPathComponent(name)
        guard FileManager.default.fileExists(atPath: folder.path) else {
            throw MissingFixture(description: "\(folder.path) is missing; run \(script) first")
        }
        return folder
    }

    /// Is the vocabulary of the released DeepSeek-V3.2 tokenizer, with 129,280 rows.
    static func deepSeekV32() throws -> GrammarVocabulary { try released.get() }

    private static let released = Result {
        let tokenizer = try Tokenizer(directory: fetched("deepseek-v3.2", by: "Scripts/fetch-tokenizers"))
        return GrammarVocabulary(tokenizer, size: 129_280)
    }

    /// Has one token for each byte.
    static let bytes = GrammarVocabulary(bytes: (0...255).map { [$0] }, controlTokens: [:], size: 256)
}

extension CompiledGrammar {
    /// Returns the state after a text; `nil` if the grammar does not allow it.
    func state(after text: String) throws -> GrammarState? { try start.advanced(by: Array(text.utf8)) }

    /// Returns true if a text follows the grammar as a whole.
    func accepts(_ text: String) throws -> Bool { try state(after: text)?.mayEnd ?? false }
}

func grammar(_ source: GrammarSource) throws -> CompiledGrammar { try CompiledGrammar(source, Fixtures.bytes) }

func schema(_ text: String) throws -> CompiledGrammar { try grammar(.jsonSchema(text)) }

/// Returns the error that compiling a source throws.
func refusal(_ source: GrammarSource) -> GrammarError? {
    do {
        _ = try grammar(source)
        return nil
    } catch {
        return error as? GrammarError
    }
}
