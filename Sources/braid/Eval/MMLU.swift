/// MMLU is multiple choice in many subjects, in the file layout of Hendrycks et al.: `dev/<subject>_dev.csv` has
/// examples, `test/<subject>_test.csv` questions, both with the columns question, A, B, C, D, answer and no header.
package enum MMLU {
    package static let letters = ["A", "B", "C", "D"]

    package struct Question: Sendable, Equatable {
        package let text: String
        /// The texts of the choices A to D.
        package let choices: [String]
        /// The right answer, one of `letters`.
        package let answer: String
    }

    /// Reads the questions of a file.
    ///
    /// - Throws: `CommandError` that names file and line.
    package static func questions(in file: DataFile) throws -> [Question] {
        let advice = "each record must be question,A,B,C,D,answer, without a header; repair or remove it"
        let questions = try CommaSeparatedValues.records(in: file).map { record in
            guard record.fields.count == 6 else {
                throw file.problem(
                    line: record.line, "the record has \(record.fields.count) fields, not 6", advice: advice)
            }
            guard letters.contains(record.fields[5]) else {
                let answer = record.fields[5].prefix(40)
                throw file.problem(line: record.line, "the answer is '\(answer)', not A, B, C or D", advice: advice)
            }
            return Question(
                text: record.fields[0], choices: Array(record.fields[1..<5]), answer: record.fields[5])
        }
        guard !questions.isEmpty else { throw CommandError("\(file.name) has no records; \(advice)") }
        return questions
    }

    /// Returns the subject of a file of questions; `nil` for other files.
    package static func subject(ofFile name: String) -> String? {
        let ending = "_test.csv"
        guard name.hasSuffix(ending), name.count > ending.count else { return nil }
        return String(name.dropLast(ending.count))
    }

    /// Returns the prompt for a question.
    ///
    /// - Parameter subject: The subject as in file names.
    package static func prompt(subject: String, shots: some Sequence<Question>, question: Question) -> String {
        let title = subject.split(separator: "_").joined(separator: " ")
        return "The following are multiple choice questions (with answers) about \(title).\n\n"
            + shots.map { block($0) + " \($0.answer)\n\n" }.joined() + block(question)
    }

    private static func block(_ question: Question) -> String {
        let choices = zip(letters, question.choices).map { "\n\($0). \($1)" }.joined()
        return question.text + choices + "\nAnswer:"
    }

    /// Returns the letter that an answer begins with; `nil` if it begins with anything else.
    package static func letter(in answer: String) -> String? {
        guard let first = answer.first(where: { !$0.isWhitespace }) else { return nil }
        return letters.first { $0 == String(first) }
    }
}
