/// Searches a text that arrives in pieces for the first of several strings.
///
/// The first is the one that ends first; of those that end together, the longest. So the result does not depend on
/// where the text is cut into pieces. Text that may begin a stop string is held back until that is decided.
package struct StopStrings: Sendable {
    /// The result of one piece.
    package struct Result: Sendable, Equatable {
        /// Text that is certainly outside any stop string.
        package var text: String
        /// The stop string that was found; no other is found after it.
        package var match: String?
        /// The rest of the piece after the match.
        package var rest: String

        package init(text: String, match: String?, rest: String) {
            self.text = text
            self.match = match
            self.rest = rest
        }
    }

    private var searches: [Search]
    private var held: [UInt8] = []
    /// True if a stop string was found.
    package private(set) var hasStopped = false

    /// Creates a search.
    ///
    /// - Parameter strings: the stop strings; none may be empty.
    package init(_ strings: [String]) {
        precondition(strings.allSatisfy { !$0.isEmpty }, "an empty stop string would stop at once")
        searches = strings.map { Search(Array($0.utf8)) }
    }

    /// Adds a piece of the text, and returns the text that is decided.
    ///
    /// - Parameter mayStop: whether a stop string that ends in this piece counts.
    package mutating func feed(_ piece: String, mayStop: Bool = true) -> Result {
        guard !hasStopped else { return Result(text: "", match: nil, rest: piece) }
        var bytes = piece.utf8.makeIterator()
        while let byte = bytes.next() {
            held.append(byte)
            var found: [UInt8] = []
            for index in searches.indices where searches[index].advance(byte) {
                if searches[index].pattern.count > found.count { found = searches[index].pattern }
            }
            guard found.isEmpty || !mayStop else {
                defer { held = [] }
                hasStopped = true
                return Result(
                    text: String(decoding: held.dropLast(found.count), as: UTF8.self),
                    match: String(decoding: found, as: UTF8.self),
                    rest: String(decoding: Array(IteratorSequence(bytes)), as: UTF8.self))
            }
        }
        let undecided = searches.map(\.undecided).max() ?? 0
        let settled = held.count - undecided
        defer { held.removeFirst(settled) }
        return Result(text: String(decoding: held[..<settled], as: UTF8.self), match: nil, rest: "")
    }

    /// Ends the text and returns what was held back, which is no stop string.
    package mutating func finish() -> String {
        defer { held = [] }
        return String(decoding: held, as: UTF8.self)
    }

    /// Knuth, Morris and Pratt's search for one string.
    private struct Search {
        let pattern: [UInt8]
        /// Maps each prefix's length to the length of the longest shorter prefix that is also a suffix of it.
        private let fallback: [Int]
        /// The length of the longest prefix that the text so far ends with.
        private(set) var matched = 0

        init(_ pattern: [UInt8]) {
            self.pattern = pattern
            var fallback = [0, 0]
            for byte in pattern.dropFirst() {
                var length = fallback[fallback.count - 1]
                while length > 0, pattern[length] != byte { length = fallback[length] }
                fallback.append(pattern[length] == byte ? length + 1 : 0)
            }
            self.fallback = fallback
        }

        /// The number of bytes at the end of the text that may begin the pattern.
        var undecided: Int { matched == pattern.count ? fallback[matched] : matched }

        /// Adds a byte, and returns whether the pattern ends with it.
        mutating func advance(_ byte: UInt8) -> Bool {
            matched = undecided
            while matched > 0, pattern[matched] != byte { matched = fallback[matched] }
            if pattern[matched] == byte { matched += 1 }
            return matched == pattern.count
        }
    }
}
