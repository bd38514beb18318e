import ArgumentParser
import Checkpoints
import Foundation
import Inference
import JSON

/// The command measures the model by itself, a running server, single layers, kernels and grammars.
struct Bench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measures prefill, decoding, an engine under load, a running server, layers, kernels, or grammars.",
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
        if let outputFile { try appendLine(result.pythonText, to: outputFile) }
    }
}

/// Appends a line to a file, and creates the file if it does not exist. Nothing waits for the reader of a pipe.
///
/// - Throws: `CommandError` with the reason if not all of the line could be written.
package func appendLine(_ line: String, to path: String) throws {
    let descriptor = try openToAppend(path)
    let file = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
    do {
        try file.write(contentsOf: Data((line + "\n").utf8))
        try file.close()
    } catch {
        throw outputRefusal(path, error.fileReason)
    }
}

/// Checks that lines can be appended to a file, and creates it if it does not exist: a measurement may take hours.
func checkAppending(to path: String?) throws {
    if let path { close(try openToAppend(path)) }
}

private func openToAppend(_ path: String) throws -> Int32 {
    let descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else {
        throw outputRefusal(path, errno == ENXIO ? "it is a pipe that nobody reads" : systemMessage(errno))
    }
    // A pipe that is read may be full for a while.
    _ = fcntl(descriptor, F_SETFL, O_APPEND)
    return descriptor
}

private func outputRefusal(_ path: String, _ reason: String) -> CommandError {
    CommandError(
        "--output-file: cannot write to '\(path)': \(reason); give the name of a file in a directory that exists")
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
