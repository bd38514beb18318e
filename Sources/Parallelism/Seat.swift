package import Tensors

/// One rank's place: its mesh, its kernels and its scratch. A model is given a seat and never asks how many there are.
package final class Seat {
    package let mesh: Mesh
    package let rank: Int
    package let kernels: Kernels
    package let scratch: Scratch

    /// - Parameter mesh: one rank for now; layouts of several come with their transports.
    package init(mesh: Mesh = Mesh(), rank: Int = 0, kernels: Kernels = .best, scratch: Scratch = Scratch()) {
        precondition(mesh.world == 1, "this build has no transport for \(mesh)")
        self.mesh = mesh
        self.rank = rank
        self.kernels = kernels
        self.scratch = scratch
    }

    /// Brings a value from the layout its producer leaves to the one its consumer needs.
    ///
    /// On one rank every edge is the identity, which is why one forward serves all layouts.
    package func cross(_ edge: Edge, _ value: View) -> View {
        precondition(edge.moves(on: mesh).isEmpty)
        return value
    }
}
