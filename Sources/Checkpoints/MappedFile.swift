import Foundation
import Tensors

/// Maps a file read-only into memory, until the last reference is released.
///
/// All tensors of a checkpoint are read through mappings, so several ranks of a process share one copy of the weights
/// and the kernel may drop and reload pages. The price: if another program makes the file shorter while it is mapped,
/// reading a lost page ends the process with SIGBUS. No check at open time can prevent that, so users must replace a
/// model directory by renaming a new one into its place, never by writing into its files.
@safe final class MappedFile: @unchecked Sendable {
    /// The whole file. It is never written, so any thread may read it while this object lives.
    let bytes: UnsafeRawBufferPointer

    /// Takes ownership of a mapping made by `mmap`.
    init(_ bytes: UnsafeRawBufferPointer) {
        unsafe self.bytes = unsafe bytes
    }

    deinit {
        unsafe munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count)
    }

    var count: Int { unsafe bytes.count }

    /// Asks the system to begin reading a range, and returns at once. A failure is ignored, because this is only a
    /// hint.
    func fetch(_ range: Range<Int>) { _ = advise(MADV_WILLNEED, range) }

    /// Reads a range into memory and into this process's page tables, and waits for it. If the system has no call for
    /// that (before Linux 5.14), it only asks the system to begin.
    ///
    /// - Throws: when the file has become shorter than the range, or its disk fails; the process has then not touched
    ///   the lost page.
    func load(_ range: Range<Int>, path: String) throws(CheckpointError) {
        #if os(Linux)
            let failure = advise(MADV_POPULATE_READ, range)
            if failure == 0 { return }
            guard failure == EINVAL else {
                throw CheckpointError(
                    file: path, problem: "bytes \(range) cannot be read: \(systemMessage(failure))",
                    advice: "the file became shorter after it was opened, or its disk fails: restore it and start again"
                )
            }
        #endif
        fetch(range)
    }

    /// Returns zero, or the error number of `madvise` on the pages that hold a range.
    private func advise(_ advice: some BinaryInteger, _ range: Range<Int>) -> Int32 {
        precondition(range.lowerBound >= 0 && range.upperBound <= count, "bytes \(range) of \(count)")
        if range.isEmpty { return 0 }
        let start = range.lowerBound / Self.pageSize * Self.pageSize
        let address = unsafe UnsafeMutableRawPointer(mutating: bytes.baseAddress! + start)
        return unsafe madvise(address, range.upperBound - start, Int32(advice)) == 0 ? 0 : errno
    }

    private static let pageSize = Int(sysconf(Int32(_SC_PAGESIZE)))
}
