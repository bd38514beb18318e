#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Memory that one owner holds and returns: moved, never copied.
///
/// It comes from the system page by page, zeroed, and only what is touched becomes resident, so a large reservation
/// costs nothing until it is used.
@safe package struct Buffer: ~Copyable, @unchecked Sendable {
    package let bytes: Int
    private let base: UnsafeMutableRawPointer

    /// Reserves `bytes` zero bytes, aligned to a memory page. Traps when the system refuses; where that depends on what
    /// a user asked for, use `init(reserving:)`.
    package init(bytes: Int) {
        precondition(bytes >= 0, "a buffer cannot have \(bytes) bytes")
        self.bytes = max(bytes, 1)
        do throws(MemoryError) {
            unsafe base = try Self.map(self.bytes)
        } catch {
            fatalError(error.description)
        }
    }

    /// Reserves `bytes` zero bytes, at least one, aligned to a memory page.
    ///
    /// - Throws: `MemoryError` when the system refuses, as under `ulimit -v` or strict overcommit.
    package init(reserving bytes: Int) throws(MemoryError) {
        self.bytes = max(bytes, 1)
        unsafe base = try Self.map(self.bytes)
    }

    deinit { unsafe munmap(base, bytes) }

    /// Says why `bytes` bytes could not be reserved now; `nil` where they could. Nothing stays reserved.
    package static func problem(reserving bytes: Int) -> MemoryError? {
        do throws(MemoryError) {
            _ = try Buffer(reserving: bytes)
            return nil
        } catch {
            return error
        }
    }

    private static func map(_ bytes: Int) throws(MemoryError) -> UnsafeMutableRawPointer {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        let memory = unsafe mmap(nil, bytes, PROT_READ | PROT_WRITE, flags, -1, 0)
        guard let memory = unsafe memory, unsafe memory != MAP_FAILED else {
            throw MemoryError(bytes: bytes, reason: unsafe String(cString: strerror(errno)))
        }
        return unsafe memory
    }

    /// The first byte. Valid as long as the buffer lives, which the caller must see to.
    @unsafe package var pointer: UnsafeMutableRawPointer { unsafe base }
}

/// Says that the system refused to reserve memory, how much that was, and why.
package struct MemoryError: Error, Equatable, Sendable, CustomStringConvertible {
    package let bytes: Int
    /// The system's words.
    package let reason: String

    package init(bytes: Int, reason: String) {
        self.bytes = bytes
        self.reason = reason
    }

    package var description: String {
        "the system does not reserve \(bytes) bytes of memory (\(reason)); `ulimit -v`, a memory limit or strict "
            + "overcommit may be why"
    }
}
