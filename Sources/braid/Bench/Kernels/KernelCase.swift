package import Tensors

/// One operation at one size, ready to be run again and again.
package struct KernelCase {
    package let operation: String
    /// What it is in a model, or its sizes.
    package let shape: String
    /// How what it reads is stored.
    package let type: DType
    package let rows: Int
    /// Of a matrix product: what others must compute to be compared.
    var product: KernelShapes.Product?
    /// Floating-point operations of one run, a multiply-add counted as two; 0 where they do not matter.
    package var operations = 0.0
    /// Bytes that one run reads or writes, each counted once.
    package let bytes: Double
    package let run: () -> Void
}

/// What the cases of one benchmark share. Made once and never given back, as the memory of a step is.
package struct KernelBed {
    let kernels: Kernels
    let cold: ColdMemory
    let scratch: Scratch

    package init(kernels: Kernels, cold: ColdMemory, scratch: Scratch) {
        self.kernels = kernels
        self.cold = cold
        self.scratch = scratch
    }

    /// Rows of small numbers of both signs.
    func activations(_ rows: Int, _ columns: Int) -> View {
        let numbers = scratch.hostRows(rows, columns)
        var state: UInt32 = 1
        for row in 0..<rows {
            for column in 0..<columns {
                state = state &* 1_664_525 &+ 1_013_904_223
                numbers[row, column] = Float(Int32(bitPattern: state)) / 0x1p31
            }
        }
        return numbers.view
    }

    /// The numbers `first`, `first + step`, ….
    func numbers(_ count: Int, first: Int = 0, step: Int = 1) -> Indices {
        let numbers = scratch.indices(count)
        for index in 0..<count { numbers[index] = Int32(first + index * step) }
        return numbers
    }

    /// Keys as a selection has them: ascending, everywhere, and others for each row. In no pattern: regular gaps would put
    /// many keys into the same few sets of a cache.
    func selection(of keys: Int, among positions: Int, rows: Int) -> Selection {
        precondition(keys <= positions, "\(keys) of \(positions) keys")
        let selected = scratch.indices(rows * keys)
        var state: UInt32 = 7
        for index in 0..<rows * keys {
            let (from, to) = (index % keys * positions / keys, (index % keys + 1) * positions / keys)
            state = state &* 1_664_525 &+ 1_013_904_223
            selected[index] = Int32(from + Int(state >> 8) % (to - from))
        }
        let counts = scratch.indices(rows)
        counts.fill(Int32(keys))
        return Selection(positions: ComputedIndices(selected), stride: keys, counts: ComputedIndices(counts))
    }

    /// Pages of 64 in an order that is no order.
    func pages(positions: Int) -> PageMap {
        let count = positions / 64
        let pages = scratch.indices(count)
        for index in 0..<count { pages[index] = Int32(index * 37 % count) }
        return PageMap(pages: pages, shift: 6)
    }
}
