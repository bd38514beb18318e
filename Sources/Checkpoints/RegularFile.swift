import Foundation
import JSON
import Tensors

/// Opens a regular file for reading; its size is that of the open descriptor.
///
/// Directories, devices and pipes are refused, even behind a symbolic link; opening a pipe does not wait for a writer.
package struct RegularFile: ~Copyable {
    let path: String
    /// The file's size in bytes when it was opened.
    let size: Int
    private let descriptor: Int32

    package init(opening path: String) throws(CheckpointError) {
        guard !path.utf8.contains(0) else {
            throw CheckpointError(
                file: path.quotedForMessage, problem: "the path holds a NUL", advice: "correct the path")
        }
        let descriptor = unsafe open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw CheckpointError(
                file: path, problem: "cannot be opened: \(systemMessage(errno))",
                advice: "check that the file was downloaded completely and may be read")
        }
        var facts = stat()
        guard unsafe fstat(descriptor, &facts) == 0, facts.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            throw CheckpointError(
                file: path, problem: "is not a regular file",
                advice: "put the file itself, or a symbolic link to it, in the model directory")
        }
        let size = Int(facts.st_size)
        if (try? Self.isPointer(size: size, descriptor: descriptor, path: path)) == true {
            close(descriptor)
            throw CheckpointError(
                file: path, problem: "is a pointer of Git LFS, not the file itself",
                advice: "run git lfs pull in its directory, or download the model with hf download")
        }
        self.path = path
        self.size = size
        self.descriptor = descriptor
    }

    /// Returns whether a file is the text that stands in place of a large one where a repository was cloned without Git
    /// LFS.
    private static func isPointer(
        size: Int, descriptor: Int32, path: String
    ) throws(CheckpointError) -> Bool {
        let beginning = Array("version https://git-lfs.github.com/spec/".utf8)
        guard (beginning.count..<1024).contains(size) else { return false }
        return try read(0..<beginning.count, descriptor: descriptor, path: path) == beginning
    }

    deinit { close(descriptor) }

    /// Returns true if the name exists, even as a symbolic link without a target.
    static func exists(_ path: String) -> Bool {
        var facts = stat()
        return unsafe lstat(path, &facts) == 0
    }

    /// Reads the whole file.
    ///
    /// - Throws: when it is larger than `limit` bytes, or cannot be read to the size it had when it was opened.
    package func contents(limit: Int) throws(CheckpointError) -> [UInt8] {
        guard size <= limit else {
            throw CheckpointError(
                file: path, problem: "has \(size) bytes, more than the limit of \(limit)",
                advice: "check that this is the right file")
        }
        return try Self.read(0..<size, descriptor: descriptor, path: path)
    }

    /// The descriptor, for threads that read parts of the file while it is open.
    var sharedDescriptor: Int32 { descriptor }

    /// Reads a range of bytes of an open file.
    ///
    /// - Throws: when the file ends before the range does, or cannot be read.
    static func read(_ range: Range<Int>, descriptor: Int32, path: String) throws(CheckpointError) -> [UInt8] {
        var filled = 0
        var failure: Int32 = 0
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: range.count) { buffer, count in
            while filled < buffer.count {
                let got = unsafe pread(
                    descriptor, buffer.baseAddress! + filled, buffer.count - filled, off_t(range.lowerBound + filled))
                if got < 0 && errno == EINTR { continue }
                if got < 0 { failure = errno }
                if got <= 0 { break }
                filled += got
            }
            count = filled
        }
        guard filled == range.count else {
            throw CheckpointError(
                file: path,
                problem: failure == 0
                    ? "became shorter while it was read" : "cannot be read: \(systemMessage(failure))",
                advice: "let nothing write the model directory while it is loaded")
        }
        return bytes
    }

    /// Maps the whole file as read-only memory, which outlives the descriptor. The file must not be empty.
    func mapped() throws(CheckpointError) -> MappedFile {
        precondition(size > 0, "an empty file cannot be mapped")
        let address = unsafe mmap(nil, size, PROT_READ, MAP_SHARED, descriptor, 0)
        guard let address = unsafe address, unsafe address != MAP_FAILED else {
            throw CheckpointError(
                file: path, problem: "cannot be mapped into memory: \(systemMessage(errno))",
                advice: "raise the limit on address space (ulimit -v) or on mappings (vm.max_map_count)")
        }
        return unsafe MappedFile(UnsafeRawBufferPointer(start: address, count: size))
    }
}
