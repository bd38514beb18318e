/// The reason why a grammar is refused, or cannot be followed any further.
package struct GrammarError: Error, Equatable, CustomStringConvertible {
    package enum Kind: Sendable {
        /// The text does not follow its own syntax, or nothing could ever match it.
        case invalid
        /// The text asks for something that this module does not do; the message names it.
        case unsupported
        /// A bound on depth, states or work was reached.
        case tooLarge
    }

    package let kind: Kind
    /// The place in the source: a JSON pointer into a schema (`#/properties/a`), `character 12` of a pattern, or empty.
    package let place: String
    package let problem: String

    package init(_ kind: Kind, at place: String = "", _ problem: String) {
        self.kind = kind
        self.place = place
        self.problem = problem
    }

    package var description: String { place.isEmpty ? problem : "\(place): \(problem)" }

    /// The same error inside something larger.
    func within(_ outer: String) -> GrammarError {
        GrammarError(kind, at: place.isEmpty ? outer : "\(outer), \(place)", problem)
    }
}
