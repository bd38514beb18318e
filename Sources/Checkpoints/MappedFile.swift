import Foundation

/// A file mapped read-only into memory; unmapped when the last reference goes.
///
/// All tensors of a checkpoint are read through mappings, so several ranks of a process share one copy of the weights
/// and the kernel may drop and reload pages. The price: if another program makes the file shorter while it is mapped,
/// touching a lost page ends the process with SIGBUS. No check at open time can prevent that, hence the rule for
/// users: replace a model directory by renaming a new one into its place, never by writing into its files.
@safe final class MappedFile: @unchecked Sendable {
    /// The whole file. Never written, so it may be read from any thread while this object lives.
    let bytes: UnsafeRawBufferPointer

    /// Takes over a mapping made by `mmap`.
    init(_ bytes: UnsafeRawBufferPointer) {
        unsafe self.bytes = unsafe bytes
    }

    deinit {
        unsafe munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count)
    }
}
