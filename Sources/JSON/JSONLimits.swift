/// Limits what a reader of JSON accepts. Every bound is checked before memory is taken for what would exceed it.
package struct JSONLimits: Sendable {
    /// Says what happens to an object that has a key more than once. Keys are compared byte by byte.
    package enum DuplicateKeys: Sendable {
        /// The last value counts and the first position is kept, as in Python.
        case lastWins
        case refused
    }

    package var duplicateKeys = DuplicateKeys.lastWins
    /// At most this many objects and arrays may be open at once.
    package var maxDepth = 128
    /// The text may have this many values; each key counts as one more. A value takes about 24 bytes beside its text.
    package var maxValues = Int.max
    /// One object may have this many members, since each is compared with all others.
    package var maxMembers = Int.max
    /// A number may have this many characters: by default as many as Python accepts for an integer.
    package var maxNumberBytes = 4300

    package init() {}

    /// Suits files whose content decides where memory is read.
    package static let strict: JSONLimits = {
        var limits = JSONLimits()
        limits.duplicateKeys = .refused
        limits.maxDepth = 64
        limits.maxNumberBytes = 400
        return limits
    }()
}
