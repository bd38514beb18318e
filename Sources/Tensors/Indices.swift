/// Borrows 32-bit integers that the host writes and reads: token ids, positions, slots, row indices, counts. It is
/// valid as long as a `View` would be.
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

    /// Returns the same memory as rows of `columns` words, for operations that only copy bits.
    package func bits(columns: Int) -> View { ComputedIndices(self).bits(columns: columns) }

    package var sum: Int { (0..<count).reduce(0) { $0 + Int(self[$1]) } }

    /// A copy of the elements. It allocates, so it is for tests and reports only.
    package var elements: [Int32] { (0..<count).map { self[$0] } }
}

/// Borrows 32-bit integers that kernels write and read: the experts that rows chose, the keys that were selected. The
/// host cannot read them; `Kernels.synchronize` waits for those that it must know. It is valid as long as a `View`
/// would be.
@safe package struct ComputedIndices {
    package let count: Int
    private let address: UnsafeMutablePointer<Int32>

    @unsafe init(_ base: UnsafeMutablePointer<Int32>, count: Int) {
        unsafe address = unsafe base
        self.count = count
    }

    /// Wraps integers that the host has written, for kernels that accept either kind.
    package init(_ indices: Indices) {
        unsafe address = indices.base
        count = indices.count
    }

    /// The address that kernels use.
    var base: UnsafeMutablePointer<Int32> { unsafe GuardedAddress.open(address) }

    package subscript(range: Range<Int>) -> ComputedIndices {
        precondition(range.lowerBound >= 0 && range.upperBound <= count)
        return unsafe ComputedIndices(address + range.lowerBound, count: range.count)
    }

    /// Returns the same memory as rows of `columns` words, for operations that only copy bits.
    package func bits(columns: Int) -> View {
        precondition(columns > 0 && count % columns == 0, "\(count) integers in rows of \(columns)")
        return unsafe address.withMemoryRebound(to: Float.self, capacity: count) {
            unsafe View($0, rows: count / columns, columns: columns)
        }
    }
}

extension Kernels {
    /// Waits until the rows are computed, and lets the host read them. Only this and `synchronize(_:)` of integers show
    /// the host what kernels have computed.
    package func synchronize(_ view: View) -> HostRows {
        unsafe HostRows(view.base, rows: view.rows, columns: view.columns, stride: view.stride)
    }

    /// Waits until the integers are computed, and lets the host read them.
    package func synchronize(_ integers: ComputedIndices) -> Indices {
        unsafe Indices(integers.base, count: integers.count)
    }
}

/// Guards addresses of scratch so that the host cannot use them.
///
/// Scratch that kernels fill has addresses with a bit set that no address of a process has. Host code that follows one
/// by mistake crashes at once, on every processor and in every test, instead of working until there is a device with
/// its own memory. The entry points of kernels and transports clear the bit.
enum GuardedAddress {
    /// This bit is above the addresses that x86-64 and 64-bit Arm give a process, and below the bits that they ignore.
    private static let mark: UInt = 1 << 50

    @unsafe static func close<Element>(_ pointer: UnsafeMutablePointer<Element>) -> UnsafeMutablePointer<Element> {
        unsafe UnsafeMutablePointer(bitPattern: UInt(bitPattern: pointer) | mark).unsafelyUnwrapped
    }

    @unsafe static func open<Element>(_ pointer: UnsafeMutablePointer<Element>) -> UnsafeMutablePointer<Element> {
        unsafe UnsafeMutablePointer(bitPattern: UInt(bitPattern: pointer) & ~mark).unsafelyUnwrapped
    }
}
