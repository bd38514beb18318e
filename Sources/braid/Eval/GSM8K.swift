import JSON

/// GSM8K is grade-school mathematics: JSON lines with `question` and `answer`, whose last line is `#### 42`.
package enum GSM8K {
    package struct Problem: Sendable, Equatable {
        package let question: String
        /// The answer with its reasoning, as few-shot examples show it.
        package let answer: String
        /// The number after `####`, in the form that `lastNumber` returns.
        package let value: String
    }

    /// Texts after which the model no longer answers this question.
    package static let stop = ["Question", "Assistant:", "<|separator|>"]

    /// Reads the problems of a file.
    ///
    /// - Throws: `CommandError` that names file and line.
    package static func problems(in file: DataFile) throws -> [Problem] {
        let advice = #"each line must be {"question": "…", "answer": "… #### 42"}; repair or remove it"#
        let problems = try file.lines.map { line, bytes in
            let json: JSONValue
            do {
                json = try JSONValue(parsing: bytes)
            } catch {
                throw file.problem(line: line, "\(error)", advice: advice)
            }
            guard let question = json["question"]?.string, let answer = json["answer"]?.string else {
                throw file.problem(line: line, "there is no question or no answer that is a string", advice: advice)
            }
            let parts = answer.split(separator: "####", omittingEmptySubsequences: false)
            guard parts.count > 1, let value = lastNumber(in: String(parts.last!)) else {
                throw file.problem(line: line, "the answer has no #### with a number after it", advice: advice)
            }
            return Problem(question: question, answer: answer, value: value)
        }
        guard !problems.isEmpty else { throw CommandError("\(file.name) has no lines; \(advice)") }
        return problems
    }

    /// Returns the prompt in the form that SGLang's benchmark and many reports use.
    package static func prompt(shots: some Sequence<Problem>, question: String) -> String {
        shots.map { "Question: \($0.question)\nAnswer: \($0.answer)\n\n" }.joined()
            + "Question: \(question)\nAnswer:"
    }

    /// Returns the last number of a text without its commas, in a form that is equal for equal numbers: no leading
    /// zeros, no zeros at the end of a fraction. A minus counts if no digit precedes it, a full stop only before a
    /// digit.
    package static func lastNumber(in text: String) -> String? {
        let bytes = text.utf8.filter { $0 != UInt8(ascii: ",") }
        func isDigit(_ at: Int) -> Bool {
            bytes.indices.contains(at) && (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[at])
        }
        guard var start = bytes.indices.last(where: isDigit) else { return nil }
        let end = start + 1
        while isDigit(start - 1) { start -= 1 }
        var point = end
        if start >= 2, bytes[start - 1] == UInt8(ascii: "."), isDigit(start - 2) {
            point = start - 1
            start -= 2
            while isDigit(start - 1) { start -= 1 }
        }
        let whole = bytes[start..<point].drop { $0 == UInt8(ascii: "0") }
        var fraction = bytes[min(point + 1, end)..<end]
        while fraction.last == UInt8(ascii: "0") { fraction.removeLast() }
        let isNegative =
            start >= 1 && bytes[start - 1] == UInt8(ascii: "-") && !isDigit(start - 2)
            && !(whole.isEmpty && fraction.isEmpty)
        return (isNegative ? "-" : "") + (whole.isEmpty ? "0" : String(decoding: whole, as: UTF8.self))
            + (fraction.isEmpty ? "" : "." + String(decoding: fraction, as: UTF8.self))
    }
}
