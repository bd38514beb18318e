/// What one rank holds of a rows × features value at a stage boundary.
package struct Layout: Equatable, Sendable {
    /// Rows are split over these axes; a rank holds every row when empty.
    package var rows: Set<Axis>
    /// The value is still one addend of a sum over this axis.
    package var owes: Axis?

    /// Traps when rows are split over the axis a sum is owed on: no collective could bring them together.
    package init(rows: Set<Axis> = [], owes: Axis? = nil) {
        precondition(owes.map { !rows.contains($0) } ?? true, "a layout cannot both split and owe \(owes!)")
        self.rows = rows
        self.owes = owes
    }
}

/// A boundary between two stages: what the producer leaves and what the consumer needs.
package struct Edge: Sendable {
    package let from: Layout
    package let to: Layout

    package init(from: Layout, to: Layout) {
        self.from = from
        self.to = to
    }

    /// The collectives this boundary costs, in axis order. Axes of degree 1 cost nothing.
    package func moves(on mesh: Mesh) -> [Move] {
        Axis.allCases.filter { mesh.degree($0) > 1 }.compactMap { axis in
            switch (from.rows.contains(axis), to.rows.contains(axis), from.owes == axis) {
            case (true, false, _): .allGather(axis)
            case (false, true, false): .slice(axis)
            case (false, false, true): .allReduce(axis)
            case (false, true, true): .reduceScatter(axis)
            default: nil
            }
        }
    }
}

/// One collective along one axis.
package enum Move: Equatable, Sendable {
    case allGather(Axis)
    case slice(Axis)
    case allReduce(Axis)
    case reduceScatter(Axis)
}
