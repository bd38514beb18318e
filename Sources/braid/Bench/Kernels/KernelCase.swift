package import Tensors

/// A kernel case is one operation at one size, which can be run repeatedly.
package struct KernelCase {
    package let operation: String
    /// The operation's name in a model, or its sizes.
    package let shape: String
    /// The element type of what the operation reads.
    package let type: DType
    package let rows: Int
    /// The matrix product, for comparison with other libraries; `nil` for other operations.
    var product: KernelShapes.Product?
    /// The number of floating-point operations of one run, a multiply-add as two; 0 where they do not matter.
    package var operations = 0.0
    /// The number of bytes that one run reads or writes, each once.
    package let bytes: Double
    package let run: () -> Void
}

/// The cases of one benchmark share this memory, which is allocated once and never freed, like that of a step.
package struct KernelBed {
    let kernels: Kernels
    let cold: ColdMemory
    let scratch: Scratch

    package init(kernels: Kernels, cold: ColdMemory, scratch: Scratch) {
        self.kernels = kernels
        self.cold = cold
        self.scratch = scratch
    }

    /// Returns rows of numbers between -1 and 1.
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

    /// Returns the numbers `first`, `first + step`, ….
    func numbers(_ count: Int, first: Int = 0, step: Int = 1) -> Indices {
        let numbers = scratch.indices(count)
        for index in 0..<count { numbers[index] = Int32(first + index * step) }
        return numbers
    }

    /// Returns selected keys that resemble those of an indexer: ascending, from all of the context, and different for
    /// each row. They are irregular, because regular gaps would map many keys to the same sets of a processor cache.
    ///
    /// - Parameter residue: The keys' residue class, of 8; `nil` for keys of all classes.
    func selection(of keys: Int, among positions: Int, rows: Int, class residue: Int? = nil) -> Selection {
        let positions = residue == nil ? positions : positions / 8
        precondition(keys <= positions, "\(keys) of \(positions) keys")
        let selected = scratch.indices(rows * keys)
        var state: UInt32 = 7
        for index in 0..<rows * keys {
            let (from, to) = (index % keys * positions / keys, (index % keys + 1) * positions / keys)
            state = state &* 1_664_525 &+ 1_013_904_223
            let chosen = from + Int(state >> 8) % (to - from)
            selected[index] = Int32(residue.map { 8 * chosen + $0 } ?? chosen)
        }
        let counts = scratch.indices(rows)
        counts.fill(Int32(keys))
        return Selection(positions: ComputedIndices(selected), stride: keys, counts: ComputedIndices(counts))
    }

    /// Returns pages of 64 tokens in scattered order.
    func pages(positions: Int) -> PageMap {
        let count = positions / 64
        let pages = scratch.indices(count)
        for index in 0..<count { pages[index] = Int32(index * 37 % count) }
        return PageMap(pages: pages, shift: 6)
    }
}
