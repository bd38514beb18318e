import ArgumentParser
import Foundation
import JSON

/// The command asks multiple-choice questions in many subjects.
struct EvalMMLU: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mmlu",
        abstract: "Few-shot multiple choice from CSV files, subject by subject.",
        discussion: """
            The directory has dev/<subject>_dev.csv with examples and test/<subject>_test.csv with questions; columns \
            are question, A, B, C, D and answer, without a header. An answer is one token.
            """)

    @OptionGroup var options: EvalOptions

    @Option(help: "The directory with dev/ and test/.")
    var dataPath: String

    @Option(help: "Examples before each question.", transform: Parsing.count(0...1000))
    var numShots = 5

    @Option(help: "Questions of each subject, at most; default: all.", transform: Parsing.count(1...Parsing.maxCount))
    var numQuestions: Int?

    @Option(help: "Subjects, separated by commas; default: all that test/ has.")
    var subjects: String?

    func validate() throws {
        var problems: [String] = []
        if !(0...1000).contains(numShots) { problems.append("--num-shots: \(numShots) is not between 0 and 1000") }
        if let numQuestions, numQuestions < 1 {
            problems.append("--num-questions: \(numQuestions) is not positive; leave it out for all")
        }
        guard problems.isEmpty else { throw ValidationError(problems.joined(separator: "\n")) }
    }

    /// A larger file is taken for a mistake.
    private static let fileLimit = 64 << 20

    private struct Item: Sendable {
        let subject: String
        let prompt: String
        let answer: String
    }

    func run() async throws {
        let subjects = try subjectNames()
        let items = try subjects.flatMap(items)
        let (server, facts) = try await options.connect()
        let asked = await ask(items, parallel: options.parallel, title: "\(items.count) questions") {
            try await server.complete(.text($0.prompt), maxNewTokens: 1)
        }
        var scores = [String: Score]()
        for (item, answer) in zip(items, asked.answers) {
            if let answer {
                scores[item.subject, default: Score()].count(MMLU.letter(in: answer.text), expected: item.answer)
            } else {
                scores[item.subject, default: Score()].failed += 1
            }
        }
        let listed = subjects.map { (name: $0, score: scores[$0]!) }
        try options.report(
            json(listed, model: facts.model, seconds: asked.seconds), text: text(listed, seconds: asked.seconds),
            failures: asked.failures)
    }

    private func subjectNames() throws -> [String] {
        let folder = dataPath + "/test"
        let files = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        let present = files.compactMap(MMLU.subject).sorted()
        guard !present.isEmpty else {
            throw CommandError("\(folder) has no *_test.csv; --data-path is the directory that has dev/ and test/")
        }
        guard let subjects else { return present }
        let wanted = Set(subjects.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) })
        if let missing = wanted.subtracting(present).min() {
            throw CommandError(
                "--subjects: there is no \(folder)/\(missing)_test.csv; there is for example \(present[0])")
        }
        guard !wanted.isEmpty else { throw CommandError("--subjects is empty; leave it out for all") }
        return wanted.sorted()
    }

    private func items(of subject: String) throws -> [Item] {
        let questions = try MMLU.questions(
            in: DataFile(path: "\(dataPath)/test/\(subject)_test.csv", limit: Self.fileLimit))
        var shots: [MMLU.Question] = []
        if numShots > 0 {
            let path = "\(dataPath)/dev/\(subject)_dev.csv"
            shots = try MMLU.questions(in: DataFile(path: path, limit: Self.fileLimit))
            guard numShots <= shots.count else {
                throw CommandError("\(path) has \(shots.count) examples, too few for --num-shots \(numShots)")
            }
        }
        return questions.prefix(numQuestions ?? questions.count).map {
            Item(
                subject: subject,
                prompt: MMLU.prompt(subject: subject, shots: shots.prefix(numShots), question: $0), answer: $0.answer)
        }
    }

    private func text(_ subjects: [(name: String, score: Score)], seconds: Double) -> String {
        let total = sum(subjects)
        let lines = subjects.map {
            "subject: \($0.name), #q: \($0.score.answered), acc: \(digits($0.score.accuracy))"
        }
        return
            (lines + [
                "Invalid: \(digits(total.invalidPart))", "Total latency: \(digits(seconds)) s",
                "Average accuracy: \(digits(total.accuracy))",
            ]).joined(separator: "\n")
    }

    private func json(_ subjects: [(name: String, score: Score)], model: String, seconds: Double) -> JSONValue {
        let total = sum(subjects)
        let list = subjects.map { subject in
            JSONMember(
                subject.name,
                .fields([
                    "accuracy": .measured(subject.score.accuracy), "num_questions": .integer(subject.score.answered),
                    "failed": .integer(subject.score.failed),
                ]))
        }
        return .fields([
            "task": .string("mmlu"), "model": .string(model), "accuracy": .measured(total.accuracy),
            "invalid": .measured(total.invalidPart), "latency": .measured(seconds),
            "num_questions": .integer(total.answered + total.failed), "failed": .integer(total.failed),
            "num_shots": .integer(numShots), "parallel": .integer(options.parallel), "subjects": .object(list),
        ])
    }

    /// Returns the score over all questions, so that subjects count by their size.
    private func sum(_ subjects: [(name: String, score: Score)]) -> Score {
        subjects.reduce(into: Score()) { $0 += $1.score }
    }
}
