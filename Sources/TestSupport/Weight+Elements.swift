package import Tensors

extension Weight {
    /// The elements, `rows × columns`, widened and scaled by the embedding kernel.
    package var elements: [Float] {
        let scratch = Scratch(bytes: rows * columns * 4 + rows * 4 + (1 << 20))
        let ids = scratch.indices(rows)
        ids.copy((0..<rows).map { Int32($0) })
        let out = scratch.rows(rows, columns)
        Kernels.best.embedding(self, ids, into: out)
        return withExtendedLifetime(scratch) { out.elements }
    }
}
