import Testing
import braid

@Suite struct MMLUTests {
    private func file(_ text: String) -> DataFile { DataFile(name: "toy_test.csv", text) }

    private func refusal(_ text: String) -> String? {
        do {
            _ = try MMLU.questions(in: file(text))
            return nil
        } catch { return "\(error)" }
    }

    @Test(
        arguments: [
            ("a,b\nc,d\n", [["a", "b"], ["c", "d"]]), ("a,b\r\nc,d", [["a", "b"], ["c", "d"]]),
            ("\u{FEFF}a\n\n\r\nb", [["a"], ["b"]]), (",\n", [["", ""]]), ("a,", [["a", ""]]), ("\"\"", [[""]]),
            ("", []),
            ("\"a,b\",\"say \"\"x\"\"\",\"\"", [["a,b", "say \"x\"", ""]]),
            ("\"two\nlines\r\nthree\",x\ny", [["two\nlines\r\nthree", "x"], ["y"]]),
            ("a \"b\" c,d", [["a \"b\" c", "d"]]), ("a\rb,c\r", [["a\rb", "c"]]), (" \"a\"", [[" \"a\""]]),
        ] as [(String, [[String]])])
    func `records are read as RFC 4180 has them`(text: String, records: [[String]]) throws {
        #expect(try CommaSeparatedValues.records(in: file(text)).map(\.fields) == records)
    }

    @Test func `records know their lines, also after quoted line ends`() throws {
        let records = try CommaSeparatedValues.records(in: file("a\n\n\"b\n\nc\",d\ne\n"))
        #expect(records.map(\.line) == [1, 3, 6])
    }

    @Test(arguments: [
        ("a\n\"b,c\nd\n", 2, "never closed"), ("a\n\"b\"c\n", 2, "follows a closing quote"),
        ("\"x\ny\" ,b", 2, "follows a closing quote"), ("a\nb\n\"", 3, "never closed"), ("\"\"\"", 1, "never closed"),
    ])
    func `broken quotes are refused where they are`(text: String, line: Int, words: String) {
        let message = refusal(text)
        #expect(message?.hasPrefix("toy_test.csv:\(line): ") == true, "\(message ?? "no error")")
        #expect(message?.contains(words) == true)
    }

    @Test func `bytes that are no text are refused with their line`() {
        let bytes = Array("a\nb".utf8) + [0xC3, 0x28]
        do {
            _ = try CommaSeparatedValues.records(in: DataFile(name: "x.csv", bytes: bytes))
            Issue.record("no error")
        } catch { #expect("\(error)".hasPrefix("x.csv:2: the text is not UTF-8")) }
    }

    /// Every text of up to six significant characters gives either records or a refusal.
    @Test func `no arrangement of quotes, commas and line ends is too much`() {
        let alphabet: [UInt8] = Array("a,\"\n\r".utf8)
        var refused = 0
        for length in 0...6 {
            for number in 0..<Int(pow(5, length)) {
                var (bytes, rest) = ([UInt8](), number)
                for _ in 0..<length {
                    bytes.append(alphabet[rest % 5])
                    rest /= 5
                }
                if (try? CommaSeparatedValues.records(in: DataFile(name: "x", bytes: bytes))) == nil { refused += 1 }
            }
        }
        #expect(refused > 0)
    }

    private func pow(_ base: Int, _ exponent: Int) -> Int { (0..<exponent).reduce(1) { power, _ in power * base } }

    private static let text = "\"Which, of these, is red?\",rose,grass,sky,\"snow\nand ice\",A\nTwo?,1,2,3,4,B\n"

    @Test func `questions have four choices and an answer`() throws {
        let questions = try MMLU.questions(in: file(Self.text))
        #expect(questions.map(\.text) == ["Which, of these, is red?", "Two?"])
        #expect(questions[0].choices == ["rose", "grass", "sky", "snow\nand ice"])
        #expect(questions.map(\.answer) == ["A", "B"])
    }

    @Test(arguments: [
        ("question,A,B,C,D,answer\n", 1, "'answer', not A, B, C or D"), ("Q,1,2,3,4,A\nQ,1,2,3,A", 2, "5 fields"),
        ("Q,1,2,3,4,5,A", 1, "7 fields"), ("Q,1,2,3,4,E", 1, "'E'"), ("Q,1,2,3,4,a", 1, "'a'"), ("Q,1,2,3,4,", 1, "''"),
        ("\"Q\n\n\",1,2,3,4,A\nx", 4, "1 fields"),
    ])
    func `other records are refused`(text: String, line: Int, words: String) {
        let message = refusal(text)
        #expect(message?.hasPrefix("toy_test.csv:\(line): ") == true, "\(message ?? "no error")")
        #expect(message?.contains(words) == true)
        #expect(message?.contains("question,A,B,C,D,answer") == true)
    }

    @Test func `a file without records is refused`() {
        #expect(refusal("\n\n")?.hasPrefix("toy_test.csv has no records") == true)
    }

    @Test func `prompts are in the well-known form`() throws {
        let questions = try MMLU.questions(in: file(Self.text))
        #expect(
            MMLU.prompt(subject: "high_school_botany", shots: questions.suffix(1), question: questions[0]) == """
                The following are multiple choice questions (with answers) about high school botany.

                Two?
                A. 1
                B. 2
                C. 3
                D. 4
                Answer: B

                Which, of these, is red?
                A. rose
                B. grass
                C. sky
                D. snow
                and ice
                Answer:
                """)
    }

    @Test(
        arguments: [
            (" A", "A"), ("\n\tD.", "D"), ("C", "C"), ("", nil), ("  ", nil), ("a", nil), ("The A", nil), ("E", nil),
            ("A\u{301}", nil),
        ] as [(String, String?)])
    func `an answer is its first letter`(text: String, letter: String?) { #expect(MMLU.letter(in: text) == letter) }

    @Test func `subjects are read from file names`() {
        #expect(MMLU.subject(ofFile: "astronomy_test.csv") == "astronomy")
        for name in ["_test.csv", "astronomy_dev.csv", "astronomy.csv", "README", ""] {
            #expect(MMLU.subject(ofFile: name) == nil)
        }
    }
}
