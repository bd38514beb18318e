/// What one rank holds of a rows × features value at a stage boundary.
package struct Layout: Equatable, Sendable {
    /// Rows are split over these axes; a rank holds every row when empty.
    package let rows: Axes
    /// The value is still one addend of a sum over this axis.
    package let owes: Axis?

    /// Traps when rows are split over the axis a sum is owed on: no collective could bring them together.
    package init(rows: Axes = [], owes: Axis? = nil) {
        precondition(owes.map { !rows.contains($0) } ?? true, "a layout cannot both split and owe \(owes!)")
        self.rows = rows
        self.owes = owes
    }
}

/// A boundary between two stages: what the producer leaves and what the consumer needs.
///
/// An edge costs one collective at most, and none where its axes have degree 1.
package struct Edge: Sendable {
    /// What traces and reports call it.
    package let name: StaticString
    package let from: Layout
    package let to: Layout
    package let move: Move

    /// Traps when no single collective leads from one layout to the other.
    package init(_ name: StaticString, from: Layout, to: Layout) {
        self.name = name
        self.from = from
        self.to = to
        switch from.owes {
        case nil where to == from: move = .nothing
        case nil where to.owes == nil && from.rows.isSuperset(of: to.rows):
            move = .allGather(from.rows.subtracting(to.rows))
        case let axis? where to.owes == nil && to.rows == from.rows.union(Axes(axis)):
            move = .reduceScatter(axis)
        default: preconditionFailure("\(name): no collective leads from \(from) to \(to)")
        }
    }

    /// The ranks that take part: those that differ along these axes only.
    package var axes: Axes {
        switch move {
        case .nothing: []
        case .allGather(let axes): axes
        case .reduceScatter(let axis): Axes(axis)
        }
    }
}

/// The collective that leads from one layout to another.
package enum Move: Equatable, Sendable {
    case nothing
    /// Rows split over these axes come together on all of them.
    case allGather(Axes)
    /// Addends of a sum over an axis are added, and each rank keeps its rows.
    case reduceScatter(Axis)
}
