/// A score counts right and wrong answers.
package struct Score: Sendable, Equatable {
    package var right = 0
    /// The number of answers that are not the right one, or from which none could be read.
    package var wrong = 0
    /// The number of those of `wrong` in which no answer was found.
    package var invalid = 0
    /// The number of questions whose request failed.
    package var failed = 0

    package init() {}

    /// Counts one answer.
    ///
    /// - Parameter answer: The answer found in the text; `nil` if there is none.
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
    /// The fraction of answered questions whose answer is right; `nil` without any.
    package var accuracy: Double? { answered == 0 ? nil : Double(right) / Double(answered) }
    package var invalidPart: Double? { answered == 0 ? nil : Double(invalid) / Double(answered) }
}
