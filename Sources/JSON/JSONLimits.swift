/// What a reader of JSON puts up with. Every bound is checked before memory is taken for what would exceed it.
package struct JSONLimits: Sendable {
    /// What happens to an object that has one key more than once. Keys are compared byte by byte.
    package enum DuplicateKeys: Sendable {
        /// The last value counts and the first place is kept, as in Python.
        case lastWins
        case refused
    }

    package var duplicateKeys = DuplicateKeys.lastWins
    /// Objects and arrays open at once.
    package var maxDepth = 128
    /// Values in the whole text, each key counted as one more. A value takes about 24 bytes of memory beside its text.
    package var maxValues = Int.max
    /// Characters of one number: by default as many as Python accepts for an integer.
    package var maxNumberBytes = 4300

    package init() {}

    /// For files that decide where memory is read.
    package static let strict: JSONLimits = {
        var limits = JSONLimits()
        limits.duplicateKeys = .refused
        limits.maxDepth = 64
        limits.maxNumberBytes = 400
        return limits
    }()
}
