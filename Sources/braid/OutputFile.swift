import Foundation
import Inference
import Tensors

/// A file that an option names for results. Nothing waits for the reader of a pipe.
package struct OutputFile {
    let path: String
    /// The option that names the file, for errors.
    let option: String

    package init(_ path: String, option: String) {
        (self.path, self.option) = (path, option)
    }

    /// Replaces what the file has by a text.
    ///
    /// - Throws: `CommandError` with the reason if not all of it could be written.
    package func write(_ text: String) throws { try write(text, O_TRUNC) }

    /// Appends a line.
    ///
    /// - Throws: `CommandError` with the reason if not all of it could be written.
    package func append(_ line: String) throws { try write(line + "\n", O_APPEND) }

    /// Checks that the file can be written, before a measurement that may take hours. A file that did not exist does not
    /// exist afterwards either, as the measurement may fail.
    package func check() throws {
        let exists = unsafe access(path, F_OK) == 0
        close(try descriptor(O_APPEND))
        // Not a link that had no target.
        if !exists { unsafe unlink(URL(fileURLWithPath: path).resolvingSymlinksInPath().path) }
    }

    private func write(_ text: String, _ mode: Int32) throws {
        let file = FileHandle(fileDescriptor: try descriptor(mode), closeOnDealloc: true)
        do {
            try file.write(contentsOf: Data(text.utf8))
            try file.close()
        } catch {
            throw refusal(error.fileReason)
        }
    }

    private func descriptor(_ mode: Int32) throws -> Int32 {
        let descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_NONBLOCK | O_CLOEXEC | mode, 0o644)
        guard descriptor >= 0 else {
            throw refusal(errno == ENXIO ? "it is a pipe that nobody reads" : systemMessage(errno))
        }
        // A pipe that is read may be full for a while.
        _ = fcntl(descriptor, F_SETFL, mode & O_APPEND)
        return descriptor
    }

    private func refusal(_ reason: String) -> CommandError {
        CommandError(
            "\(option): cannot write to '\(path)': \(reason); give the name of a file in a directory that exists")
    }
}

extension OutputFile {
    /// The file of `--output-file`, to which benchmarks and evaluations append lines; `nil` if it is not given.
    static func ofResults(_ path: String?) -> OutputFile? { path.map { OutputFile($0, option: "--output-file") } }
}
