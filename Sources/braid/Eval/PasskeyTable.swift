import Foundation
package import JSON

/// A passkey table holds scores by length and depth.
package struct PasskeyTable: Sendable {
    private let lengths: [Int]
    private let depths: [Int]
    private var scores: [[Score]]

    package init(lengths: [Int], depths: [Int]) {
        self.lengths = lengths
        self.depths = depths
        scores = lengths.map { _ in depths.map { _ in Score() } }
    }

    /// Counts one answer.
    ///
    /// - Parameter answer: `nil` if the request failed, `.some(nil)` if the answer contains no key.
    package mutating func count(_ answer: String??, expected: String, length: Int, depth: Int) {
        guard let row = lengths.firstIndex(of: length), let column = depths.firstIndex(of: depth) else {
            preconditionFailure("the table has no such cell")
        }
        if let answer {
            scores[row][column].count(answer, expected: expected)
        } else {
            scores[row][column].failed += 1
        }
    }

    /// Returns the score of a length, of a depth, of both, or of all questions.
    package func score(length: Int? = nil, depth: Int? = nil) -> Score {
        var sum = Score()
        for (row, ofLength) in zip(lengths, scores) where length == nil || row == length {
            for (column, score) in zip(depths, ofLength) where depth == nil || column == depth { sum += score }
        }
        return sum
    }

    /// The table, with a line for each length and one for all, and a column for each depth and one for all.
    package var text: String {
        let head = row("tokens", depths.map { "\($0) %" } + ["all"])
        let lines = lengths.map { length in
            row(
                "\(length)",
                depths.map { accuracy(score(length: length, depth: $0)) } + [accuracy(score(length: length))])
        }
        let last = row("all", depths.map { accuracy(score(depth: $0)) } + [accuracy(score())])
        let total = score()
        let overall = "Accuracy: \(accuracy(total)) (\(total.right) of \(total.answered))"
        return ([head] + lines + [last, overall]).joined(separator: "\n")
    }

    package var json: JSONValue {
        let cells = zip(lengths, scores).flatMap { length, ofLength in
            zip(depths, ofLength).map { depth, score in
                JSONValue.fields([
                    "length": .integer(length), "depth": .integer(depth), "right": .integer(score.right),
                    "wrong": .integer(score.wrong), "failed": .integer(score.failed),
                ])
            }
        }
        return .array(cells)
    }

    private func row(_ title: String, _ cells: [String]) -> String {
        ([title] + cells).map { String(repeating: " ", count: max(8 - $0.count, 1)) + $0 }.joined()
    }

    private func accuracy(_ score: Score) -> String { score.accuracy.map { String(format: "%.3f", $0) } ?? "-" }
}
