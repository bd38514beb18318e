/// A direction along which ranks differ.
///
/// The ranks of a stage are divided twice: for attention by `data × context × tensor`, for the routed experts by
/// `expert × expertTensor`. A plain feed-forward is shared by the `dense` ranks: those of `tensor`, or one alone. The keys
/// of a data group are owned by `ownership` ranks of its `context × tensor`, once for each such set of ranks.
package enum Axis: Int, Hashable, Sendable, CaseIterable {
    /// Stages of consecutive layers.
    case pipeline
    /// Groups of requests.
    case data
    /// Rows of the prompts.
    case context
    /// Heads.
    case tensor
    /// Columns of a plain feed-forward.
    case dense
    /// Routed experts.
    case expert
    /// Columns of a routed expert.
    case expertTensor
    /// Keys of a request, where queries go to the keys.
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
    /// All ranks of a pipeline stage.
    package static let stage: Axes = [.data, .context, .tensor]

    package func contains(_ axis: Axis) -> Bool { contains(Axes(axis)) }

    package var description: String {
        let names = Axis.allCases.filter { contains($0) }.map { "\($0)" }
        return names.isEmpty ? "nothing" : names.joined(separator: " × ")
    }
}
