/// Says why a grammar is refused, or cannot be followed any further.
package struct GrammarError: Error, Equatable, CustomStringConvertible {
    package enum Kind: Sendable {
        /// The text breaks its own syntax, or nothing could ever match it.
        case invalid
        /// The text uses something that this module does not support; the message names it.
        case unsupported
        /// A bound on depth, states or work was exceeded.
        case tooLarge
        /// The caller did not want the grammar any more; see `GrammarWork`.
        case givenUp
    }

    package let kind: Kind
    /// The location of the error in the source: a JSON pointer into a schema (`#/properties/a`), `character 12` of a
    /// pattern, or empty.
    package let place: String
    package let problem: String

    package init(_ kind: Kind, at place: String = "", _ problem: String) {
        self.kind = kind
        self.place = place
        self.problem = problem
    }

    package var description: String { place.isEmpty ? problem : "\(place): \(problem)" }

    /// Returns the same error, located inside something larger.
    func within(_ outer: String) -> GrammarError {
        GrammarError(kind, at: place.isEmpty ? outer : "\(outer), \(place)", problem)
    }
}
