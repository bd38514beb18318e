/// An error of a prefix store, for an operator: what cannot be used, why, and what to do.
package struct PrefixStoreError: Error, CustomStringConvertible {
    package let description: String
    init(_ description: String) { self.description = description }
}
