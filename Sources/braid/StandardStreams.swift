// `stdout` is a variable to Swift, and nothing here assigns it.
@unsafe @preconcurrency import Foundation
import Inference
import Synchronization
import Tensors

/// Standard input, output and error, any of which may be closed, full, or a pipe that nobody reads.
enum StandardStreams {
    private static let failure = Mutex<String?>(nil)

    /// Opens those that are closed. Otherwise the next files and sockets would get their descriptors, and with them what
    /// the program prints. They are opened the wrong way round, so that reading and printing fail as before.
    static func openClosed() {
        let streams = [(STDIN_FILENO, O_WRONLY), (STDOUT_FILENO, O_RDONLY), (STDERR_FILENO, O_RDONLY)]
        // The system takes the lowest descriptor that is free.
        for (descriptor, mode) in streams where fcntl(descriptor, F_GETFD) == -1 {
            _ = unsafe open("/dev/null", mode)
        }
    }

    /// Writes to standard output without a buffer, so that nothing is lost if the process ends. `finish` says what could
    /// not be written.
    static func write(_ text: String) {
        do {
            try FileHandle.standardOutput.write(contentsOf: Data(text.utf8))
        } catch {
            failure.withLock { $0 = $0 ?? error.fileReason }
        }
    }

    /// Writes out what was printed.
    ///
    /// - Throws: `CommandError` with the reason if not all of it could be written, now or earlier.
    static func finish() throws {
        if unsafe fflush(stdout) != 0 {
            let reason = systemMessage(errno)
            failure.withLock { $0 = $0 ?? reason }
        } else if unsafe ferror(stdout) != 0 {
            // An earlier write failed, whose error number is lost. What is written now mostly fails in the same way.
            let reason = unsafe Foundation.write(STDOUT_FILENO, "\n", 1) < 0 ? systemMessage(errno) : systemMessage(EIO)
            failure.withLock { $0 = $0 ?? reason }
        }
        guard let reason = failure.withLock({ $0 }) else { return }
        throw CommandError("standard output cannot be written: \(reason); what was printed is not complete")
    }
}
