import Checkpoints

/// A data file is a file of questions or text that the user gave, with any content.
package struct DataFile: Sendable {
    /// The file's name in messages.
    package let name: String
    package let bytes: [UInt8]

    package init(name: String, _ text: String) {
        self.name = name
        bytes = Array(text.utf8)
    }

    package init(name: String, bytes: [UInt8]) {
        self.name = name
        self.bytes = bytes
    }

    /// Reads a regular file, also behind a symbolic link, as mounted configurations are.
    ///
    /// - Parameters:
    ///   - option: The command-line option that named the file.
    ///   - limit: The largest size of the file in bytes.
    /// - Throws: `CommandError` that says why the file is not read: there is none, it is none, or it is larger.
    package init(path: String, option: String = "--data-path", limit: Int) throws {
        do throws(CheckpointError) {
            self.init(name: path, bytes: try RegularFile(opening: path).contents(limit: limit))
        } catch {
            throw CommandError("\(option): \(path.printableLine) \(error.problem); give a file that may be read")
        }
    }

    /// Returns an error about one line of the file.
    ///
    /// - Parameters:
    ///   - line: The number of the line, from 1.
    ///   - advice: The remedy.
    package func problem(line: Int, _ what: String, advice: String) -> any Error {
        CommandError("\(name):\(line): \(what); \(advice)")
    }

    /// The lines that are not blank, with their numbers from 1 and without their ends (LF or CR LF).
    package var lines: [(number: Int, bytes: ArraySlice<UInt8>)] {
        bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated()
            .map { (number: $0 + 1, bytes: $1.last == UInt8(ascii: "\r") ? $1.dropLast() : $1) }
            .filter { !$0.bytes.allSatisfy { $0 == UInt8(ascii: " ") || (9...13).contains($0) } }
    }
}
