import Foundation

/// A file mapped read-only into memory; unmapped when the last reference goes.
///
/// All tensors of a checkpoint are read through mappings, so several ranks of a process share one copy of the weights
/// and the kernel may drop and reload pages. The price: if another program makes the file shorter while it is mapped,
/// touching a lost page ends the process with SIGBUS. No check at open time can prevent that, hence the rule for
/// users: replace a model directory by renaming a new one into its place, never by writing into its files.
@safe final class MappedFile: @unchecked Sendable {
    let path: String
    /// The whole file. Never written, so it may be read from any thread while this object lives.
    let bytes: UnsafeRawBufferPointer

    /// Takes over a mapping made by `mmap`.
    init(path: String, bytes: UnsafeRawBufferPointer) {
        self.path = path
        unsafe self.bytes = unsafe bytes
    }

    deinit {
        unsafe munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count)
    }

    var count: Int { unsafe bytes.count }

    /// How the kernel should expect the file to be read.
    enum Advice {
        case sequential
        case willNeed
    }

    /// A hint, which changes speed and never results; so its failure is no error.
    func advise(_ advice: Advice, _ range: Range<Int>) {
        let code =
            switch advice {
            case .sequential: MADV_SEQUENTIAL
            case .willNeed: MADV_WILLNEED
            }
        _ = advise(code: Int32(code), range)
    }

    /// Brings a range of the file into memory, where the system has a call for that (Linux 5.14); elsewhere starts it.
    ///
    /// - Throws: when the file has become shorter than the range or its disk fails. Nothing has touched the page then.
    func load(_ range: Range<Int>) throws(CheckpointError) {
        #if os(Linux)
            let failure = advise(code: Int32(MADV_POPULATE_READ), range)
            if failure == 0 { return }
            guard failure == EINVAL else {
                throw CheckpointError(
                    file: path, problem: "bytes \(range) cannot be loaded: \(systemMessage(failure))",
                    advice: "the file became shorter after it was opened, or its disk fails: restore it and start again"
                )
            }
        #endif
        advise(.willNeed, range)
    }

    /// Bytes of the file that are in memory now, in whole pages but at most the file's size; nil where the system does
    /// not tell.
    var residentBytes: Int? {
        let page = Self.pageSize
        var pages = 0
        let chunk = 65_536 * page
        for start in stride(from: 0, to: count, by: chunk) {
            let length = min(chunk, count - start)
            var states = [UInt8](repeating: 0, count: (length + page - 1) / page)
            let failed = unsafe states.withUnsafeMutableBufferPointer { buffer in
                unsafe withAddress(start) { address in
                    unsafe mincore(
                        address, length,
                        UnsafeMutableRawPointer(buffer.baseAddress!).assumingMemoryBound(to: MinCoreState.self)) != 0
                }
            }
            if failed { return nil }
            for state in states where state & 1 == 1 { pages += 1 }
        }
        return min(pages * page, count)
    }

    #if canImport(Darwin)
        private typealias MinCoreState = CChar
    #else
        private typealias MinCoreState = UInt8
    #endif

    private static let pageSize = Int(sysconf(Int32(_SC_PAGESIZE)))

    /// Zero or the error number of `madvise` on the pages that hold `range`.
    private func advise(code: Int32, _ range: Range<Int>) -> Int32 {
        precondition(range.lowerBound >= 0 && range.upperBound <= count, "range outside the mapping")
        if range.isEmpty { return 0 }
        let start = range.lowerBound / Self.pageSize * Self.pageSize
        return unsafe withAddress(start) { address in
            unsafe madvise(address, range.upperBound - start, code) == 0 ? 0 : errno
        }
    }

    private func withAddress<Result>(_ offset: Int, _ body: (UnsafeMutableRawPointer) -> Result) -> Result {
        unsafe body(UnsafeMutableRawPointer(mutating: bytes.baseAddress! + offset))
    }
}
