import ArgumentParser
import Foundation
import JSON

/// The command measures whether the model finds a fact in a long document, by the document's length and the fact's
/// depth.
struct EvalPasskey: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "passkey",
        abstract: "Asks for a number hidden in documents of several lengths, at several depths.",
        discussion: """
            Documents are made from the seed: eight facts such as "The pass key for Karen is 64193." among small \
            sentences, and a question about one of them. Lengths are tokens of the whole prompt.
            """)

    @OptionGroup var options: EvalOptions

    @Option(help: "Lengths of prompts in tokens, separated by commas.", transform: ascendingCounts(1...1 << 24))
    var lengths = [1024, 4096, 16384, 32768]

    @Option(help: "Where the fact lies, in percent, separated by commas.", transform: percentages)
    var depths = [0, 25, 50, 75, 100]

    @Option(help: "Questions for each length and depth.", transform: Parsing.count(1...Parsing.maxCount))
    var numQuestions = 4

    @Option(help: "The seed of the documents.", transform: Parsing.seed())
    var seed: UInt64 = 1

    func validate() throws {
        guard (1...10_000).contains(numQuestions) else {
            throw ValidationError("--num-questions: \(numQuestions) is not between 1 and 10000")
        }
    }

    private struct Item: Sendable {
        let length: Int
        let document: PasskeyDocument
    }

    /// The answer to an item, with the length of its prompt.
    private struct Found: Sendable {
        let promptTokens: Int
        let completion: Completion
    }

    func run() async throws {
        let (server, facts) = try await options.connect()
        try facts.check(longest: lengths.last! + PasskeyDocument.answerTokens, "--lengths \(lengths.last!)")
        let filler = try await filler(server)
        let items = lengths.flatMap { length in
            depths.flatMap { depth in
                (0..<numQuestions).map { number in
                    let document = PasskeyDocument(length: length, depth: depth, number: number, seed: seed)
                    return Item(length: length, document: document)
                }
            }
        }
        let asked = await ask(items, parallel: options.parallel, title: "\(items.count) questions") { item in
            let tokens = try await item.document.tokens(length: item.length, filler: filler) {
                try await server.tokens(of: [$0], addingSpecialTokens: true)[0]
            }
            let completion = try await server.complete(
                .tokens(tokens), maxNewTokens: PasskeyDocument.answerTokens)
            return Found(promptTokens: tokens.count, completion: completion)
        }
        var table = PasskeyTable(lengths: lengths, depths: depths)
        for (item, found) in zip(items, asked.answers) {
            let document = item.document
            let answer = found.map { PasskeyDocument.key(in: $0.completion.text) }
            table.count(answer, expected: document.expected, length: item.length, depth: document.depth)
        }
        let inexact = zip(items, asked.answers).count { $1 != nil && $1!.promptTokens != $0.length }
        if inexact > 0 { note("\(inexact) prompts are not exactly as long as asked: the sentences did not fit") }
        let heading = "\(facts.model): accuracy by length and depth, \(numQuestions) questions each, seed \(seed)\n"
        try options.report(
            json(table, model: facts.model, seconds: asked.seconds),
            text: heading + table.text + "\nLatency: \(digits(asked.seconds)) s", failures: asked.failures)
    }

    private func filler(_ server: EvalServer) async throws -> PasskeyFiller {
        // There are enough sentences that a document rarely repeats one.
        let sentences = PasskeyWords.sentences(min(max(lengths.last! / 8, 256), 8192), seed: seed)
        let counts = try await server.tokens(of: sentences.map { " " + $0 }, addingSpecialTokens: false).map(\.count)
        guard counts.allSatisfy({ $0 > 0 }) else { throw CommandError("/tokenize gave no tokens for a sentence") }
        return PasskeyFiller(sentences, counts: counts)
    }

    private func json(_ table: PasskeyTable, model: String, seconds: Double) -> JSONValue {
        let total = table.score()
        return .fields([
            "task": .string("passkey"), "model": .string(model), "accuracy": .measured(total.accuracy),
            "invalid": .measured(total.invalidPart), "latency": .measured(seconds),
            "num_questions": .integer(total.answered + total.failed), "failed": .integer(total.failed),
            "seed": .string(String(seed)), "parallel": .integer(options.parallel), "cells": table.json,
        ])
    }
}

/// Reads a list such as `0,25,100` as ascending percentages without repetitions.
///
/// - Throws: `CommandError` that names the part that is not a percentage.
package func percentages(_ text: String) throws -> [Int] {
    let values = try text.split(separator: ",", omittingEmptySubsequences: false).map { field in
        let part = field.trimmingCharacters(in: .whitespaces)
        guard let number = Int(part), (0...100).contains(number) else {
            throw CommandError("'\(part)' is not a whole number from 0 to 100; write for example 0,50,100")
        }
        return number
    }
    return Set(values).sorted()
}
