import ArgumentParser
import Foundation
import JSON

/// The command asks questions of grade-school mathematics, as SGLang's benchmark does.
struct EvalGSM8K: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gsm8k",
        abstract: "Few-shot grade-school mathematics from a JSONL file.",
        discussion: """
            Lines are {"question": "…", "answer": "… #### 42"}. The first lines are the examples, and are not asked \
            themselves unless --shots-path gives examples of their own. The last number of an answer counts.
            """)

    @OptionGroup var options: EvalOptions

    @Option(help: "The JSONL file with the questions.")
    var dataPath: String

    @Option(help: "A JSONL file with the examples; default: the first lines of --data-path.")
    var shotsPath: String?

    @Option(help: "Examples before each question.", transform: Parsing.count(0...1000))
    var numShots = 5

    @Option(help: "Questions to ask, at most.", transform: Parsing.count(1...Parsing.maxCount))
    var numQuestions = 200

    @Option(help: "New tokens of an answer, at most.", transform: Parsing.count(1...Parsing.maxTokens))
    var maxNewTokens = 512

    @Option(help: "0 takes the best token each time.", transform: Parsing.number(0...2))
    var temperature = 0.0

    func validate() throws {
        var problems: [String] = []
        if !(0...1000).contains(numShots) { problems.append("--num-shots: \(numShots) is not between 0 and 1000") }
        if numQuestions < 1 { problems.append("--num-questions: \(numQuestions) is not positive; try 200") }
        if maxNewTokens < 1 { problems.append("--max-new-tokens: \(maxNewTokens) is not positive; try 512") }
        guard problems.isEmpty else { throw ValidationError(problems.joined(separator: "\n")) }
    }

    /// A larger file is taken for a mistake.
    private static let fileLimit = 256 << 20

    func run() async throws {
        let (shots, questions) = try problems()
        let (server, facts) = try await options.connect()
        let (maxNewTokens, temperature) = (maxNewTokens, temperature)
        let asked = await ask(questions, parallel: options.parallel, title: "\(questions.count) questions") {
            try await server.complete(
                .text(GSM8K.prompt(shots: shots, question: $0.question)), maxNewTokens: maxNewTokens, stop: GSM8K.stop,
                temperature: temperature)
        }
        var score = Score()
        score.failed = asked.failures.count
        for case (let question, let answer?) in zip(questions, asked.answers) {
            score.count(GSM8K.lastNumber(in: answer.text), expected: question.value)
        }
        let throughput = Double(asked.answers.compactMap { $0?.tokens }.reduce(0, +)) / asked.seconds
        let result = JSONValue.fields([
            "task": .string("gsm8k"), "model": .string(facts.model), "accuracy": .measured(score.accuracy),
            "invalid": .measured(score.invalidPart), "latency": .measured(asked.seconds),
            "output_throughput": .measured(throughput), "num_questions": .integer(questions.count),
            "failed": .integer(score.failed), "num_shots": .integer(numShots), "parallel": .integer(options.parallel),
        ])
        let text = """
            Accuracy: \(digits(score.accuracy))
            Invalid: \(digits(score.invalidPart))
            Latency: \(digits(asked.seconds)) s
            Output throughput: \(digits(throughput)) token/s
            """
        try options.report(result, text: text, failures: asked.failures)
    }

    private func problems() throws -> (shots: [GSM8K.Problem], questions: [GSM8K.Problem]) {
        let problems = try GSM8K.problems(in: DataFile(path: dataPath, limit: Self.fileLimit))
        let examples = try shotsPath.map {
            try GSM8K.problems(in: DataFile(path: $0, option: "--shots-path", limit: Self.fileLimit))
        }
        guard numShots <= (examples ?? problems).count else {
            throw CommandError(
                "\(shotsPath ?? dataPath) has \((examples ?? problems).count) lines, too few for --num-shots \(numShots)"
            )
        }
        let questions = Array((examples == nil ? problems.dropFirst(numShots) : problems[...]).prefix(numQuestions))
        guard !questions.isEmpty else {
            throw CommandError("\(dataPath): all lines are examples; lower --num-shots or give --shots-path")
        }
        return (Array((examples ?? problems).prefix(numShots)), questions)
    }
}

/// Returns a number with three decimal places, or a dash if nothing was measured.
func digits(_ value: Double?) -> String { value.map(rounded) ?? "-" }
