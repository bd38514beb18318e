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

    /// Reserves `bytes` zero bytes, aligned to a memory page. Traps when the address space is exhausted.
    package init(bytes: Int) {
        precondition(bytes >= 0, "a buffer cannot have \(bytes) bytes")
        self.bytes = max(bytes, 1)
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        let memory = unsafe mmap(nil, self.bytes, PROT_READ | PROT_WRITE, flags, -1, 0)
        guard let memory = unsafe memory, unsafe memory != MAP_FAILED else {
            fatalError("cannot reserve \(bytes) bytes of memory: error \(errno)")
        }
        unsafe base = memory
    }

    deinit { unsafe munmap(base, bytes) }

    /// The first byte. Valid as long as the buffer lives, which the caller must see to.
    @unsafe package var pointer: UnsafeMutableRawPointer { unsafe base }
}
