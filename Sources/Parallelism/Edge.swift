/// Describes the part of a rows × features value that one rank holds at an edge.
package struct Layout: Equatable, Sendable {
    /// The rows are split over these axes; if there are none, a rank holds every row.
    package let rows: Axes
    /// If set, the value is one addend of a sum over this axis that is still to be added.
    package let owes: Axis?

    /// Creates a layout. Traps if rows are split over the axis of an owed sum: no collective could add them.
    package init(rows: Axes = [], owes: Axis? = nil) {
        precondition(owes.map { !rows.contains($0) } ?? true, "a layout cannot both split and owe \(owes!)")
        self.rows = rows
        self.owes = owes
    }
}

/// A boundary between two operations: it says what the producer leaves and what the consumer needs.
///
/// An edge costs at most one collective, and none if its axes have degree 1.
package struct Edge: Sendable {
    /// The name of the edge in traces and reports.
    package let name: StaticString
    package let from: Layout
    package let to: Layout
    package let move: Move

    /// Creates an edge. Traps if no single collective leads from one layout to the other.
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

    /// The ranks that take part differ along these axes only.
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
    /// Gathers rows that are split over these axes on all of their ranks.
    case allGather(Axes)
    /// Adds the addends of a sum over an axis, and keeps on each rank its own rows.
    case reduceScatter(Axis)
}
