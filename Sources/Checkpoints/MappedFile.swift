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

    var count: Int { unsafe bytes.count }

    /// Asks the system to begin reading a range, and returns at once. A hint: its failure is no error.
    func fetch(_ range: Range<Int>) { _ = advise(MADV_WILLNEED, range) }

    /// Brings a range into memory and into this process's page tables, and waits for it. Where the system has no call for
    /// that (before Linux 5.14), asks it to begin.
    ///
    /// - Throws: when the file has become shorter than the range, or its disk fails. Nothing has touched the page then.
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

    /// Zero, or the error number of `madvise` on the pages that hold a range.
    private func advise(_ advice: some BinaryInteger, _ range: Range<Int>) -> Int32 {
        precondition(range.lowerBound >= 0 && range.upperBound <= count, "bytes \(range) of \(count)")
        if range.isEmpty { return 0 }
        let start = range.lowerBound / Self.pageSize * Self.pageSize
        let address = unsafe UnsafeMutableRawPointer(mutating: bytes.baseAddress! + start)
        return unsafe madvise(address, range.upperBound - start, Int32(advice)) == 0 ? 0 : errno
    }

    private static let pageSize = Int(sysconf(Int32(_SC_PAGESIZE)))
}
