/// A direction along which ranks differ.
///
/// The ranks of a stage are divided twice: for attention by `data × context × tensor`, for the routed experts by
/// `expert × expertTensor`. The `dense` ranks share a dense feed-forward: they are those of `tensor`, or one alone. The
/// keys of a data group are sharded over `kvSharding` ranks of its `context × tensor`, once for each such set of ranks.
package enum Axis: Int, Hashable, Sendable, CaseIterable {
    /// Ranks differ in their stage, that is, in their consecutive layers.
    case pipeline
    /// Ranks differ in their requests.
    case data
    /// Ranks differ in their rows of prompts.
    case context
    /// Ranks differ in their attention heads.
    case tensor
    /// Ranks differ in their columns of a dense feed-forward.
    case dense
    /// Ranks differ in their routed experts.
    case expert
    /// Ranks differ in their columns of a routed expert.
    case expertTensor
    /// Ranks differ in the keys of a request that they own, in query-gather attention.
    case kvSharding
}

/// A set of axes.
package struct Axes: OptionSet, Hashable, Sendable, CustomStringConvertible {
    package let rawValue: Int
    package init(rawValue: Int) { self.rawValue = rawValue }
    package init(_ axis: Axis) { rawValue = 1 << axis.rawValue }

    package static let pipeline = Axes(.pipeline)
    package static let data = Axes(.data)
    package static let context = Axes(.context)
    package static let tensor = Axes(.tensor)
    package static let dense = Axes(.dense)
    package static let expert = Axes(.expert)
    package static let expertTensor = Axes(.expertTensor)
    package static let kvSharding = Axes(.kvSharding)
    /// The axes that span all ranks of a pipeline stage.
    package static let stage: Axes = [.data, .context, .tensor]

    package func contains(_ axis: Axis) -> Bool { contains(Axes(axis)) }

    package var description: String {
        let names = Axis.allCases.filter { contains($0) }.map { "\($0)" }
        return names.isEmpty ? "nothing" : names.joined(separator: " × ")
    }
}
