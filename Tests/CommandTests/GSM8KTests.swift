import Testing
import braid

@Suite struct GSM8KTests {
    private func problems(_ lines: String...) throws -> [GSM8K.Problem] {
        try GSM8K.problems(in: DataFile(name: "toy.jsonl", lines.joined(separator: "\n")))
    }

    private func refusal(_ lines: String...) -> String? {
        do {
            _ = try GSM8K.problems(in: DataFile(name: "toy.jsonl", lines.joined(separator: "\n")))
            return nil
        } catch { return "\(error)" }
    }

    private static let apples = #"{"question": "Two apples and 3 apples?", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"}"#

    @Test func `lines are read, blank ones and carriage returns are not`() throws {
        let read = try problems(
            Self.apples + "\r", "", "  \r", #"{"answer": "is #### 1,234", "question": "é", "more": 1}"#)
        #expect(read.map(\.question) == ["Two apples and 3 apples?", "é"])
        #expect(read.map(\.value) == ["5", "1234"])
        #expect(read[0].answer == "2 + 3 = <<2+3=5>>5\n#### 5")
    }

    @Test func `refusals name file and line and say what a line is`() {
        let bad = [
            "{", "[]", "null", "\u{1}", #"{"question": "a"}"#, #"{"question": 1, "answer": "is #### 2"}"#,
            #"{"question": "a", "answer": "42"}"#, #"{"question": "a", "answer": "42 ####"}"#,
            #"{"question": "a", "answer": "is #### 5 #### none"}"#, #"{"question": "a", "answer": "\ud800 #### 1"}"#,
            String(repeating: "[", count: 100_000),
        ]
        for line in bad {
            let message = refusal(Self.apples, "", line)
            #expect(message?.hasPrefix("toy.jsonl:3: ") == true, "\(line.prefix(40)) gave \(message ?? "no error")")
            #expect(message?.contains("each line must be") == true)
        }
        #expect(refusal("", " ")?.hasPrefix("toy.jsonl has no lines") == true)
        #expect(throws: (any Error).self) {
            try GSM8K.problems(in: DataFile(name: "toy.jsonl", bytes: Array(Self.apples.utf8) + [0x0A, 0xFF, 0xFE]))
        }
    }

    @Test func `prompts have the examples and then the question`() throws {
        let shots = try problems(Self.apples, #"{"question": "One?", "answer": "is #### 1"}"#)
        #expect(
            GSM8K.prompt(shots: shots, question: "Why?")
                == "Question: Two apples and 3 apples?\nAnswer: 2 + 3 = <<2+3=5>>5\n#### 5\n\n"
                + "Question: One?\nAnswer: is #### 1\n\nQuestion: Why?\nAnswer:")
        #expect(GSM8K.prompt(shots: [], question: "Why?") == "Question: Why?\nAnswer:")
    }

    @Test(
        arguments: [
            ("42", "42"), (" It is 42.", "42"), ("1 + 2 = 3 apples", "3"), ("$1,234,567 in all", "1234567"),
            ("3.50 dollars", "3.5"), ("12.00", "12"), ("0.0", "0"), ("-0", "0"), ("007", "7"), ("the -7 degrees", "-7"),
            ("10-5", "5"), ("10 - 5", "5"), ("1.2.3", "2.3"), ("a.5", "5"), ("0.05", "0.05"), ("#### 18\n", "18"),
            ("-", nil), ("", nil), ("none at all.", nil), ("٤٢", nil), ("x² ", nil), (",,,", nil), ("5,", "5"),
            ("00000.5000", "0.5"), ("-1,000.10", "-1000.1"), (".5", "5"), ("6 é", "6"),
        ] as [(String, String?)])
    func `the last number of a text is found`(text: String, number: String?) {
        #expect(GSM8K.lastNumber(in: text) == number)
    }

    @Test func `numbers may have any length`() {
        let number = String(repeating: "9", count: 100_000)
        #expect(GSM8K.lastNumber(in: "it is \(number)!") == number)
    }

    @Test func `right, wrong and missing answers are counted apart`() {
        var score = Score()
        #expect(score.accuracy == nil)
        for answer in ["5", "6", nil, "5"] { score.count(answer, expected: "5") }
        score.failed = 3
        #expect((score.right, score.wrong, score.invalid) == (2, 2, 1))
        #expect(score.accuracy == 0.5)
        #expect(score.invalidPart == 0.25)
        score += score
        #expect((score.right, score.wrong, score.invalid, score.failed) == (4, 4, 2, 6))
    }
}
