import ArgumentParser
import Foundation
import JSON

/// The command measures how well the model of a running server answers.
struct Eval: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Asks a running server questions whose answers are known.",
        discussion: """
            Nothing is downloaded: gsm8k, mmlu and ppl read files of yours. The exit status is 1 when a request \
            failed; accuracies are of the questions that were answered.
            """,
        subcommands: [EvalPasskey.self, EvalGSM8K.self, EvalMMLU.self, EvalPerplexity.self])
}

/// These options belong to all evaluations.
struct EvalOptions: ParsableArguments, Sendable {
    @OptionGroup(title: "Server") var server: ServerOptions

    @Option(help: "Requests that run at the same time, at most.", transform: Parsing.count(1...Parsing.maxRanks))
    var parallel = 64

    @Flag(help: "Print a line of JSON instead of text.")
    var json = false

    @Option(help: "Append the line of JSON to this file.")
    var outputFile: String?

    func validate() throws {
        guard (1...4096).contains(parallel) else {
            throw ValidationError("--parallel: \(parallel) is not between 1 and 4096")
        }
    }

    func connect() async throws -> (server: EvalServer, facts: ServerFacts) {
        try OutputFile.ofResults(outputFile)?.check()
        let client = try server.client()
        return (EvalServer(client), try await ServerFacts(client, model: server.model))
    }

    /// Prints the result and the failures, and throws if a request failed.
    func report(_ result: JSONValue, text: String, failures: [String]) throws {
        print(json ? result.pythonText : text)
        try OutputFile.ofResults(outputFile)?.append(result.pythonText)
        guard !failures.isEmpty else { return }
        note("\(failures.count) requests failed:")
        for failure in failureCounts(failures).prefix(5) { note("  \(failure.count) × \(failure.reason)") }
        throw ExitCode(1)
    }
}

/// The answers to all questions.
package struct Asked<Answer: Sendable>: Sendable {
    /// The answers in the order of the questions; `nil` if the request failed.
    package fileprivate(set) var answers: [Answer?]
    /// The reasons of failures.
    package fileprivate(set) var failures: [String] = []
    /// The seconds from the first request to the last answer.
    package fileprivate(set) var seconds = 0.0
}

/// Asks all questions, `parallel` at a time, with a progress bar if standard error is a terminal. If `answer` throws
/// for a question, that question has no answer, and the others go on.
package func ask<Question: Sendable, Answer: Sendable>(
    _ questions: [Question], parallel: Int, title: String,
    _ answer: @escaping @Sendable (Question) async throws -> Answer
) async -> Asked<Answer> {
    precondition(parallel > 0, "no question could ever be asked")
    var asked = Asked(answers: [Answer?](repeating: nil, count: questions.count))
    let bar = ProgressBar(title)
    defer { bar.finish() }
    let start = ContinuousClock.now
    await withTaskGroup(of: (Int, Result<Answer, any Error>).self) { tasks in
        var (running, done) = (0, 0)
        func collect(_ result: (Int, Result<Answer, any Error>)?) {
            guard let (index, outcome) = result else { return }
            switch outcome {
            case .success(let answer): asked.answers[index] = answer
            case .failure(let error): asked.failures.append("\(error)")
            }
            (running, done) = (running - 1, done + 1)
            bar.update(Double(done) / Double(questions.count))
        }
        for (index, question) in questions.enumerated() {
            while running >= parallel { collect(await tasks.next()) }
            running += 1
            tasks.addTask {
                do {
                    return (index, .success(try await answer(question)))
                } catch {
                    return (index, .failure(error))
                }
            }
        }
        while running > 0 { collect(await tasks.next()) }
    }
    asked.seconds = (ContinuousClock.now - start) / .seconds(1)
    return asked
}
