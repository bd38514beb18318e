/// The grid of ranks, whose number is the product of the degrees. Degree 1 is the normal case, not a special one.
package struct Mesh: Sendable, Hashable, CustomStringConvertible {
    private let degrees: [Int]

    /// Creates a mesh. Axes that are not named have degree 1.
    package init(_ degrees: [Axis: Int] = [:]) {
        precondition(degrees.values.allSatisfy { $0 > 0 }, "a degree is at least 1")
        self.degrees = Axis.allCases.map { degrees[$0] ?? 1 }
    }

    package func degree(_ axis: Axis) -> Int { degrees[axis.rawValue] }

    /// Returns the number of ranks that differ along these axes only.
    package func degree(_ axes: Axes) -> Int {
        Axis.allCases.reduce(1) { axes.contains($1) ? $0 * degree($1) : $0 }
    }

    /// The number of ranks.
    package var world: Int { degrees.reduce(1, *) }

    /// Returns a rank's coordinate on an axis. The last axis varies fastest.
    package func coordinate(of rank: Int, on axis: Axis) -> Int { rank / stride(of: axis) % degree(axis) }

    /// Returns the ranks that share every coordinate with `rank` except those on `axes`, ascending. They include
    /// `rank`.
    package func group(of rank: Int, along axes: Axes) -> [Int] {
        // Plans ask this for each rank, step and collective, so it must not look at all ranks of a large mesh.
        let along = Axis.allCases.filter { axes.contains($0) && degree($0) > 1 }
        let first = along.reduce(rank) { $0 - coordinate(of: rank, on: $1) * stride(of: $1) }
        // The last axis varies fastest, so the members are ascending.
        return along.reduce([first]) { members, axis in
            let stride = stride(of: axis)
            return members.flatMap { member in (0..<degree(axis)).map { member + $0 * stride } }
        }
    }

    private func stride(of axis: Axis) -> Int { degrees[(axis.rawValue + 1)...].reduce(1, *) }

    package var description: String {
        let named = Axis.allCases.filter { degree($0) > 1 }.map { "\($0) \(degree($0))" }
        return named.isEmpty ? "one rank" : named.joined(separator: " × ")
    }
}
