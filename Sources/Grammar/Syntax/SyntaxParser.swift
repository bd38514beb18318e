/// A recursive-descent parser of a notation in which `|` separates options and parentheses group. It reads a text scalar
/// by scalar; this protocol has the reading that such parsers share.
protocol SyntaxParser {
    /// The parts that options and groups consist of.
    associatedtype Part
    var scalars: [Unicode.Scalar] { get }
    /// The index of the next scalar.
    var at: Int { get set }
    /// The number of groups around the next scalar, and one for the text itself.
    var depth: Int { get set }
    /// Reads what stands between two `|`, or `(` and `)`.
    mutating func sequence() throws(GrammarError) -> Part
    /// Returns how error messages call the place of a scalar, such as `line 2`.
    func place(of index: Int) -> String
}

extension SyntaxParser {
    /// The next scalar; `nil` at the end.
    var peek: Unicode.Scalar? { at < scalars.count ? scalars[at] : nil }

    /// Skips a text if it comes next, and returns true if it did.
    mutating func skip(_ text: String) -> Bool {
        guard scalars[at...].starts(with: text.unicodeScalars) else { return false }
        at += text.unicodeScalars.count
        return true
    }

    /// Reads decimal digits as a number; one that does not fit counts as `Int.max`.
    ///
    /// - Returns: `nil` if no digit comes next.
    mutating func digits() -> Int? {
        let start = at
        while let next = peek, "0"..."9" ~= next { at += 1 }
        return at == start ? nil : Int(String(String.UnicodeScalarView(scalars[start..<at]))) ?? .max
    }

    /// Reads sequences that `|` separates, at least one.
    ///
    /// - Throws: what `sequence` throws, and `tooLarge` if groups are nested deeper than 100 levels.
    mutating func options() throws(GrammarError) -> [Part] {
        let maxDepth = 100
        depth += 1
        defer { depth -= 1 }
        guard depth <= maxDepth else {
            throw error(.tooLarge, "groups are nested deeper than \(maxDepth) levels")
        }
        var options = [try sequence()]
        while skip("|") { options.append(try sequence()) }
        return options
    }

    /// Returns an error at a scalar, the next one unless `index` is given.
    func error(_ kind: GrammarError.Kind, _ problem: String, at index: Int? = nil) -> GrammarError {
        GrammarError(kind, at: place(of: index ?? at), problem)
    }
}
