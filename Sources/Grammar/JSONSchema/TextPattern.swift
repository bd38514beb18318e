/// A pattern or format of a schema, which is compiled when it is first needed, and once.
final class TextPattern {
    private let make: () throws(GrammarError) -> CharacterAutomaton
    private var made: Result<CharacterAutomaton, GrammarError>?

    private init(_ make: @escaping () throws(GrammarError) -> CharacterAutomaton) { self.make = make }

    /// Creates a pattern that may match anywhere in a text.
    ///
    /// - Parameter path: the location of the pattern in the schema, for errors.
    convenience init(pattern: String, at path: String) {
        self.init { () throws(GrammarError) in
            do throws(GrammarError) {
                return try CharacterAutomaton(Pattern(parsing: pattern), search: true)
            } catch {
                throw error.within(path)
            }
        }
    }

    /// Creates the pattern of a format.
    ///
    /// - Parameter path: the location of the format in the schema, for errors.
    convenience init(format name: String, at path: String) {
        self.init { () throws(GrammarError) in
            if let automaton = try StringFormats.automaton(name) { return automaton }
            throw GrammarError(
                .unsupported, at: path,
                "format '\(name.prefix(40))' is not supported; \(StringFormats.names.joined(separator: ", ")) are")
        }
    }

    /// The automaton of the texts that match.
    var automaton: CharacterAutomaton {
        get throws(GrammarError) {
            if let made { return try made.get() }
            let result = Result(catching: make)
            made = result
            return try result.get()
        }
    }
}
