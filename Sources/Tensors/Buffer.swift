#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// A `Buffer` owns memory from the system, can be moved but not copied, and returns the memory when it ends.
///
/// Its pages are zeroed, and only those that are touched become resident, so a large reservation costs nothing until it
/// is used.
@safe package struct Buffer: ~Copyable, @unchecked Sendable {
    package let bytes: Int
    private let base: UnsafeMutableRawPointer

    /// Reserves `bytes` zero bytes, aligned to a memory page. Traps when the system refuses; use `init(reserving:)` for
    /// sizes that depend on a user's options.
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

    /// Returns why `bytes` bytes cannot be reserved now, or `nil` if they can. The reservation is undone at once.
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
            throw MemoryError(bytes: bytes, reason: systemMessage(errno))
        }
        return unsafe memory
    }

    /// Points to the first byte. The caller must ensure that the buffer outlives every use.
    @unsafe package var pointer: UnsafeMutableRawPointer { unsafe base }
}

/// Reports that the system refused to reserve memory, with the number of bytes and the reason.
package struct MemoryError: Error, Equatable, Sendable, CustomStringConvertible {
    package let bytes: Int
    /// The system's own message.
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
