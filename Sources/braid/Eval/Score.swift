/// How many answers were right.
package struct Score: Sendable, Equatable {
    package var right = 0
    /// Answers that are another than the right one, or none.
    package var wrong = 0
    /// Those of `wrong` in which no answer was found.
    package var invalid = 0
    /// Questions whose request failed.
    package var failed = 0

    package init() {}

    /// Counts one answer.
    ///
    /// - Parameter answer: what was found in the text; `nil` where nothing was.
    package mutating func count(_ answer: String?, expected: String) {
        if answer == expected {
            right += 1
        } else {
            wrong += 1
            if answer == nil { invalid += 1 }
        }
    }

    package static func += (sum: inout Score, other: Score) {
        sum.right += other.right
        sum.wrong += other.wrong
        sum.invalid += other.invalid
        sum.failed += other.failed
    }

    package var answered: Int { right + wrong }
    /// Of the questions that were answered; `nil` where there are none.
    package var accuracy: Double? { answered == 0 ? nil : Double(right) / Double(answered) }
    package var invalidPart: Double? { answered == 0 ? nil : Double(invalid) / Double(answered) }
}
