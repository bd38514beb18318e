package import Tensors

extension Kernels {
    /// Applies a Hadamard transform to index keys or index queries in place if the cache keeps index keys in FP8, with one
    /// scale per entry, or in FP4: it spreads large values in a few elements over all elements.
    ///
    /// Keys and queries are both transformed, so scores do not change. Widths that are not a power of two have no such
    /// transform and are rounded as they are.
    ///
    /// - Parameter dtype: the element type in which the cache keeps index keys.
    package func spreadIndex(_ x: View, heads: Int, for dtype: DType) {
        if [.fp8, .fp4].contains(dtype) && Self.canRotate(width: x.columns / heads) { hadamard(x, heads: heads) }
    }
}
