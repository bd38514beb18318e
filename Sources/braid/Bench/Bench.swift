import ArgumentParser
import Foundation
import JSON

/// The command measures the model by itself, a running server, single layers, kernels and grammars.
struct Bench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measures prefill, decoding, an engine under load, a running server, a layer, kernels, or a grammar.",
        subcommands: [
            BenchPrefill.self, BenchDecode.self, BenchOffline.self, BenchServing.self, BenchLayer.self,
            BenchKernels.self,
            BenchGrammar.self,
        ])
}

/// These options belong to the benchmarks that run a model in this process.
struct BenchOutputOptions: ParsableArguments {
    @Flag(help: "Print JSON lines instead of a table.")
    var json = false

    @Option(help: "Append the JSON lines to this file.")
    var outputFile: String?

    @Option(help: "The seed of the random prompts.", transform: Parsing.seed())
    var seed: UInt64 = 1

    /// Prints a result as a line of JSON or of the table, and appends it to the file.
    func write(_ result: JSONValue, row: @autoclosure () -> String) throws {
        print(json ? result.pythonText : row())
        try OutputFile.ofResults(outputFile)?.append(result.pythonText)
    }
}

/// Reads `1024,4096,128K` as ascending numbers without repetitions, each as `Parsing.count` does.
///
/// - Throws: `CommandError` that names the part that is no such number, and the legal ones.
package func ascendingCounts(_ legal: ClosedRange<Int>) -> @Sendable (String) throws -> [Int] {
    { text in
        let counts = try text.split(separator: ",", omittingEmptySubsequences: false).map { field in
            let part = field.trimmingCharacters(in: .whitespaces)
            do {
                return try Parsing.count(legal)(part)
            } catch let error as ValidationError {
                throw CommandError("of '\(part)': \(error.message); write for example 1024,4096 or 1K,4K")
            }
        }
        return Set(counts).sorted()
    }
}

extension JSONValue {
    /// Returns a number, without a decimal point if it is whole.
    static func amount(_ value: Double) -> JSONValue { Int(exactly: value).map(JSONValue.integer) ?? .measured(value) }

    /// Returns a number; `null` if nothing was measured.
    static func measured(_ value: Double?) -> JSONValue {
        value.flatMap { JSONNumber($0) }.map(JSONValue.number) ?? .null
    }
}
