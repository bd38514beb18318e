package import Tensors

/// Only tests read elements that kernels have computed, and write elements that kernels will read.
extension View {
    private var hostRows: HostRows { Kernels.best.synchronize(self) }

    package subscript(row: Int, column: Int) -> Float {
        get { hostRows[row, column] }
        nonmutating set { hostRows[row, column] = newValue }
    }

    package func fill(_ value: Float) { hostRows.fill(value) }

    package var elements: [Float] { hostRows.elements }
}

extension ComputedIndices {
    package subscript(index: Int) -> Int32 {
        get { Kernels.best.synchronize(self)[index] }
        nonmutating set { Kernels.best.synchronize(self)[index] = newValue }
    }

    package var elements: [Int32] { Kernels.best.synchronize(self).elements }
}
