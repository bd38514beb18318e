/// A regular expression over Unicode scalars.
indirect enum Pattern: Sendable, Equatable {
    case set(ScalarSet)
    case sequence([Pattern])
    case choice([Pattern])
    case repeated(Pattern, minimum: Int, maximum: Int?)
    /// These match where nothing was read before, and where nothing follows.
    case start, end

    static let empty = Pattern.sequence([])

    static func text(_ text: String) -> Pattern { .sequence(text.unicodeScalars.map { .set(ScalarSet($0)) }) }
}
