import ArgumentParser
import Foundation
import Grammar
import JSON
import Models
import Tokenization

/// The command measures the cost of structured output: compiling grammars, and computing masks over a model's
/// vocabulary.
struct BenchGrammar: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "grammar", abstract: "Measures grammars and their masks over a vocabulary.",
        discussion: "Times are processor time of one thread. Texts are made of random allowed tokens.")

    @Option(help: "The directory of the tokenizer.")
    var modelPath: String

    @Option(help: "Texts for each grammar.", transform: Parsing.count(1...Parsing.maxCount))
    var texts = 10

    @Option(help: "Tokens of each text, at most.", transform: Parsing.count(1...Parsing.maxTokens))
    var tokens = 200

    @OptionGroup var output: BenchOutputOptions

    private static let sources: [(name: String, source: GrammarSource)] = [
        (
            "object of five properties",
            .jsonSchema(
                #"{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0,"maximum":150},"mail":{"type":"string","format":"email"},"tags":{"type":"array","items":{"type":"string","maxLength":12}},"kind":{"enum":["a","b","c"]}},"required":["name","age"]}"#
            )
        ),
        (
            "recursive schema",
            .jsonSchema(
                ##"{"type":"object","properties":{"text":{"type":"string"},"children":{"type":"array","items":{"$ref":"#"}}},"required":["text","children"]}"##
            )
        ),
        ("any object", .jsonObject),
        ("string of up to 5000 characters", .jsonSchema(#"{"type":"string","maxLength":5000}"#)),
        ("string with a pattern", .jsonSchema(#"{"type":"string","pattern":"^[A-Za-z0-9 ,.;]{10,400}$"}"#)),
        ("regular expression", .pattern("([A-Z][a-z]+ ){3,40}")),
    ]

    func run() throws {
        try OutputFile.ofResults(output.outputFile)?.check()
        let tokenizer = try Tokenizer.read(URL(fileURLWithPath: ModelLocation(modelPath).directory))
        let vocabulary = GrammarVocabulary(tokenizer, size: tokenizer.vocabularySize)
        if !output.json { print("grammar\tcompile ms\tmasks\tfirst ms\tmean ms\tp99 ms\tmax ms\tMiB") }
        for (name, source) in Self.sources {
            let (compiling, grammar) = try Self.milliseconds { try CompiledGrammar(source, vocabulary) }
            let masks = try masks(grammar, vocabulary)
            let sorted = masks.sorted()
            let values = [
                compiling, Double(masks.count), masks[0], masks.reduce(0, +) / Double(masks.count),
                sorted[sorted.count * 99 / 100], sorted.last!, Double(grammar.byteCount) / Double(1 << 20),
            ]
            try output.write(
                .fields([
                    "grammar": .string(name), "vocabulary": .integer(vocabulary.size),
                    "compile_ms": .measured(values[0]),
                    "masks": .integer(masks.count), "first_ms": .measured(values[2]), "mean_ms": .measured(values[3]),
                    "p99_ms": .measured(values[4]), "max_ms": .measured(values[5]), "mib": .measured(values[6]),
                ]),
                row: ([name] + values.map { String(format: "%.3f", $0) }).joined(separator: "\t"))
        }
    }

    /// Returns the time of each mask of some random texts, in milliseconds.
    private func masks(_ grammar: CompiledGrammar, _ vocabulary: GrammarVocabulary) throws -> [Double] {
        var generator = SystemRandomNumberGenerator()
        var times: [Double] = []
        for _ in 0..<texts {
            var state = try grammar.start
            for _ in 0..<tokens where !state.isFinal {
                let (time, mask) = try Self.milliseconds { try state.mask() }
                times.append(time)
                guard let token = Self.randomToken(of: mask, vocabulary.size, &generator),
                    let next = try state.advanced(by: token)
                else { break }
                state = next
            }
        }
        return times
    }

    /// Returns the first allowed token at or after a random index.
    private static func randomToken(
        of mask: TokenMask, _ size: Int, _ generator: inout some RandomNumberGenerator
    ) -> Int32? {
        let place = Int.random(in: 0..<size, using: &generator)
        return (0..<size).lazy.map { Int32((place + $0) % size) }.first { mask.contains($0) }
    }

    private static func milliseconds<Value>(_ body: () throws -> Value) rethrows -> (Double, Value) {
        let start = processorTime()
        let value = try body()
        return (processorTime() - start, value)
    }

    private static func processorTime() -> Double {
        var time = timespec()
        unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return Double(time.tv_sec) * 1e3 + Double(time.tv_nsec) * 1e-6
    }
}
