import Foundation
import Synchronization
import Tensors

/// The directory of a prefix store. Everything in it is opened relative to the directory's descriptor, without following
/// symbolic links, and only regular files are read.
final class StoreDirectory: Sendable {
    let path: String
    private let descriptor: Int32
    /// The descriptor of the lock file, once this process has the lock. The lock ends with the process.
    private let lock = Mutex<Int32?>(nil)
    /// Returns an error number for a stage that is to fail, and 0 otherwise. It is for tests.
    private let fault: @Sendable (DiskPrefixStore.Stage) -> Int32

    /// A file that cannot be used.
    enum ReadFailure: Error, Equatable {
        case absent
        /// The file is no regular file of the expected size.
        case damaged(String)
        /// The system refuses to read it.
        case unreadable(String)
    }

    /// The name of a file that was written, with its size and the time of its last use in nanoseconds since 1970.
    struct Listed: Sendable, Equatable {
        let id: BlockID
        let bytes: Int
        let used: Int64
    }

    private static let lockName = "lock"
    private static let temporarySuffix = ".part"
    /// Sparse files may claim to be larger, whose sum would overflow.
    private static let mostBytes = 1 << 40

    /// Opens a directory, and creates it if it does not exist.
    init(_ path: String, fault: @escaping @Sendable (DiskPrefixStore.Stage) -> Int32 = { _ in 0 })
        throws(PrefixStoreError)
    {
        guard !path.isEmpty, !path.utf8.contains(0) else { throw PrefixStoreError("the path is empty or holds a NUL") }
        if unsafe mkdir(path, 0o700) != 0, errno != EEXIST {
            throw PrefixStoreError(
                "\(path) cannot be created: \(systemMessage(errno)); create the directories above it")
        }
        let descriptor = unsafe open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw PrefixStoreError("\(path) cannot be opened as a directory: \(systemMessage(errno))")
        }
        var facts = stat()
        guard unsafe fstat(descriptor, &facts) == 0, facts.st_uid == geteuid(), facts.st_mode & 0o077 == 0 else {
            close(descriptor)
            throw PrefixStoreError(
                "\(path) must belong to the user of this server and be closed to all others, as its files tell what "
                    + "clients have written: chmod 700 \(path), or name a directory that does not exist yet")
        }
        self.path = path
        self.descriptor = descriptor
        self.fault = fault
    }

    deinit {
        close(descriptor)
        releaseLock()
    }

    /// Gives up the lock, if this process has it.
    func releaseLock() {
        lock.withLock { held in
            if let held { close(held) }
            held = nil
        }
    }

    /// Takes the lock of the directory's only writer.
    ///
    /// - Returns: true if this process has the lock; false if another one has it, or the file system is read-only.
    /// - Throws: if the system refuses it for another reason.
    func takeLock() throws(PrefixStoreError) -> Bool {
        let (isHeld, failure): (Bool, Int32) = lock.withLock { held in
            if held != nil { return (true, 0) }
            let file = unsafe openat(
                descriptor, Self.lockName, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0o600)
            guard file >= 0 else { return (false, errno == EROFS ? 0 : errno) }
            guard flock(file, LOCK_EX | LOCK_NB) == 0 else {
                let failure = errno
                close(file)
                return (false, failure == EWOULDBLOCK ? 0 : failure)
            }
            held = file
            return (true, 0)
        }
        guard failure == 0 else {
            throw PrefixStoreError("\(path)/\(Self.lockName) cannot be locked: \(systemMessage(failure))")
        }
        return isHeld
    }

    /// Returns the files of blocks. Other files are ignored.
    ///
    /// - Parameter removesRemains: true to remove what an earlier writer did not finish.
    func list(removesRemains: Bool) -> [Listed] {
        guard let names = try? FileManager.default.contentsOfDirectory(atPath: path) else { return [] }
        return names.compactMap { name in
            if name.hasSuffix(Self.temporarySuffix),
                BlockID(fileName: String(name.dropLast(Self.temporarySuffix.count))) != nil
            {
                if removesRemains { unsafe unlinkat(descriptor, name, 0) }
                return nil
            }
            guard let id = BlockID(fileName: name), let facts = facts(of: name) else { return nil }
            return Listed(id: id, bytes: facts.bytes, used: facts.used)
        }
    }

    /// Returns when a block was last used according to its file; `nil` if there is none.
    func used(_ id: BlockID) -> Int64? { facts(of: id.fileName)?.used }

    private func facts(of name: String) -> (bytes: Int, used: Int64)? {
        var facts = stat()
        guard unsafe fstatat(descriptor, name, &facts, AT_SYMLINK_NOFOLLOW) == 0, facts.st_mode & S_IFMT == S_IFREG
        else { return nil }
        let (seconds, nanoseconds) = Self.modified(facts)
        return (
            min(Int(facts.st_size), Self.mostBytes),
            Int64(clamping: seconds).multipliedClamping(1_000_000_000) &+ Int64(nanoseconds)
        )
    }

    private static func modified(_ facts: stat) -> (Int, Int) {
        #if canImport(Darwin)
            (facts.st_mtimespec.tv_sec, facts.st_mtimespec.tv_nsec)
        #else
            (facts.st_mtim.tv_sec, facts.st_mtim.tv_nsec)
        #endif
    }

    /// Reads a file that must have one of some lengths.
    func read(_ id: BlockID, lengths: Set<Int>) throws(ReadFailure) -> [UInt8] {
        let file = unsafe openat(descriptor, id.fileName, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
        guard file >= 0 else {
            switch errno {
            case ENOENT: throw .absent
            case ELOOP: throw .damaged("it is a symbolic link")
            default: throw .unreadable(systemMessage(errno))
            }
        }
        defer { close(file) }
        var facts = stat()
        guard unsafe fstat(file, &facts) == 0, facts.st_mode & S_IFMT == S_IFREG else {
            throw .damaged("it is no regular file")
        }
        let count = Int(facts.st_size)
        guard lengths.contains(count) else {
            throw .damaged("it has \(count) bytes, not \(lengths.sorted().map { "\($0)" }.joined(separator: " or "))")
        }
        var (filled, failure): (Int, Int32) = (0, fault(.read))
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            while filled < count, failure == 0 {
                let got = unsafe pread(file, buffer.baseAddress! + filled, count - filled, off_t(filled))
                if got < 0 && errno == EINTR { continue }
                if got < 0 { failure = errno }
                if got <= 0 { break }
                filled += got
            }
            initialized = filled
        }
        guard failure == 0 else { throw .unreadable(systemMessage(failure)) }
        guard filled == count else { throw .damaged("it became shorter while it was read") }
        return bytes
    }

    /// Writes a file whole or not at all: under another name first, which it loses when all bytes are on the disk.
    func save(_ id: BlockID, _ bytes: [UInt8]) throws(PrefixStoreError) {
        let (name, temporary) = (id.fileName, id.fileName + Self.temporarySuffix)
        unsafe unlinkat(descriptor, temporary, 0)
        let file = unsafe openat(
            descriptor, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw PrefixStoreError(systemMessage(errno)) }
        var failure = fault(.write)
        if failure == 0 { failure = Self.writeAll(bytes, to: file) }
        if failure == 0, fsync(file) != 0 { failure = errno }
        close(file)
        if failure == 0 { failure = fault(.rename) }
        if failure == 0, unsafe renameat(descriptor, temporary, descriptor, name) != 0 { failure = errno }
        guard failure == 0 else {
            unsafe unlinkat(descriptor, temporary, 0)
            throw PrefixStoreError(systemMessage(failure))
        }
    }

    /// Returns the number of the error that ended the write; 0 if all bytes are written.
    private static func writeAll(_ bytes: [UInt8], to file: Int32) -> Int32 {
        unsafe bytes.withUnsafeBytes { buffer in
            var next = 0
            while next < buffer.count {
                let written = unsafe write(file, buffer.baseAddress! + next, buffer.count - next)
                if written < 0 && errno == EINTR { continue }
                guard written > 0 else { return written < 0 ? errno : EIO }
                next += written
            }
            return 0
        }
    }

    /// Removes a block's file.
    ///
    /// - Returns: false if it is still there.
    @discardableResult func remove(_ id: BlockID) -> Bool {
        unsafe unlinkat(descriptor, id.fileName, 0) == 0 || errno == ENOENT
    }

    /// Shows in a file when it was last used. A failure only makes the block seem older.
    func touch(_ id: BlockID, _ time: Int64) {
        let spec = timespec(tv_sec: Int(time / 1_000_000_000), tv_nsec: Int(time % 1_000_000_000))
        let times = [spec, spec]
        _ = unsafe times.withUnsafeBufferPointer { times in
            unsafe utimensat(descriptor, id.fileName, times.baseAddress!, AT_SYMLINK_NOFOLLOW)
        }
    }
}

extension Int64 {
    fileprivate func multipliedClamping(_ factor: Int64) -> Int64 {
        let (product, overflow) = multipliedReportingOverflow(by: factor)
        return overflow ? (self < 0 ? .min / 2 : .max / 2) : product
    }
}
