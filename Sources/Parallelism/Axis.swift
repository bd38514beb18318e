/// A direction of the mesh along which ranks differ. A rank has one coordinate on each axis.
package enum Axis: Int, Hashable, Sendable, CaseIterable {
    /// Stages of consecutive layers.
    case pipeline
    /// Groups of requests.
    case data
    /// Rows of the prompts.
    case context
    /// Heads and feed-forward columns.
    case tensor
}
