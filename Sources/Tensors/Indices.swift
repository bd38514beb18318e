/// Borrowed 32-bit integers that the host makes and reads: token ids, positions, slots, row numbers, counts. Valid as long
/// as a `View`.
@safe package struct Indices {
    package let count: Int
    let base: UnsafeMutablePointer<Int32>

    @unsafe package init(_ base: UnsafeMutablePointer<Int32>, count: Int) {
        unsafe self.base = unsafe base
        self.count = count
    }

    package subscript(index: Int) -> Int32 {
        get {
            precondition(index >= 0 && index < count)
            return unsafe base[index]
        }
        nonmutating set {
            precondition(index >= 0 && index < count)
            unsafe base[index] = newValue
        }
    }

    package subscript(range: Range<Int>) -> Indices {
        precondition(range.lowerBound >= 0 && range.upperBound <= count)
        return unsafe Indices(base + range.lowerBound, count: range.count)
    }

    package func fill(_ value: Int32) { unsafe base.update(repeating: value, count: count) }

    package func copy(_ values: some Collection<Int32>) {
        precondition(values.count == count)
        var next = 0
        for value in values {
            unsafe base[next] = value
            next += 1
        }
    }

    /// The same memory as rows of `columns` numbers, for what only moves bits and does not compute with them.
    package func bits(columns: Int) -> View { ComputedIndices(self).bits(columns: columns) }

    package var sum: Int { (0..<count).reduce(0) { $0 + Int(self[$1]) } }

    /// A copy. Allocates: for tests and reports.
    package var elements: [Int32] { (0..<count).map { self[$0] } }
}

/// Borrowed 32-bit integers that kernels make and read: experts that rows chose, keys that were selected. The host cannot
/// look into them: `Kernels.synchronize` is where it waits for those it must know. Valid as long as a `View`.
@safe package struct ComputedIndices {
    package let count: Int
    private let address: UnsafeMutablePointer<Int32>

    @unsafe init(_ base: UnsafeMutablePointer<Int32>, count: Int) {
        unsafe address = unsafe base
        self.count = count
    }

    /// Integers that the host has made, where kernels take those of either kind.
    package init(_ indices: Indices) {
        unsafe address = indices.base
        count = indices.count
    }

    /// Where kernels find the integers.
    var base: UnsafeMutablePointer<Int32> { unsafe GuardedAddress.open(address) }

    package subscript(range: Range<Int>) -> ComputedIndices {
        precondition(range.lowerBound >= 0 && range.upperBound <= count)
        return unsafe ComputedIndices(address + range.lowerBound, count: range.count)
    }

    /// The same memory as rows of `columns` numbers, for what only moves bits and does not compute with them.
    package func bits(columns: Int) -> View {
        precondition(columns > 0 && count % columns == 0, "\(count) integers in rows of \(columns)")
        return unsafe address.withMemoryRebound(to: Float.self, capacity: count) {
            unsafe View($0, rows: count / columns, columns: columns)
        }
    }
}

extension Kernels {
    /// Waits until the rows are computed, and lets the host read them. With `synchronize(_:)` of integers the only place
    /// where the host learns what kernels have made.
    package func synchronize(_ view: View) -> HostRows {
        unsafe HostRows(view.base, rows: view.rows, columns: view.columns, stride: view.stride)
    }

    /// Waits until the integers are computed, and lets the host read them.
    package func synchronize(_ integers: ComputedIndices) -> Indices {
        unsafe Indices(integers.base, count: integers.count)
    }
}

/// Addresses of scratch that the host cannot follow.
///
/// Scratch that kernels fill is handed out at addresses with a bit set that no address of a process has, so host code that
/// follows one by mistake crashes at once, on every processor and in every test, instead of working until there is a
/// device with a memory of its own. Kernels' and transports' entry points clear the bit.
enum GuardedAddress {
    /// Beyond what x86-64 and 64-bit Arm give a process, within what they do not ignore.
    private static let mark: UInt = 1 << 50

    @unsafe static func close<Element>(_ pointer: UnsafeMutablePointer<Element>) -> UnsafeMutablePointer<Element> {
        unsafe UnsafeMutablePointer(bitPattern: UInt(bitPattern: pointer) | mark).unsafelyUnwrapped
    }

    @unsafe static func open<Element>(_ pointer: UnsafeMutablePointer<Element>) -> UnsafeMutablePointer<Element> {
        unsafe UnsafeMutablePointer(bitPattern: UInt(bitPattern: pointer) & ~mark).unsafelyUnwrapped
    }
}
