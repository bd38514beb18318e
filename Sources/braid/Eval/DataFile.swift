import Foundation

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

    /// - Parameters:
    ///   - option: The command-line option that named the file.
    ///   - limit: The largest size of the file in bytes.
    /// - Throws: `CommandError` if there is no such file, or it is larger.
    package init(path: String, option: String = "--data-path", limit: Int) throws {
        let url = URL(fileURLWithPath: path)
        let size: Int
        do {
            let values = try url.resourceValues(forKeys: [.isRegularFileKey, .fileSizeKey])
            guard values.isRegularFile == true else {
                throw CommandError("\(path) is not a file; give \(option) one")
            }
            size = values.fileSize ?? 0
        } catch let error as CommandError {
            throw error
        } catch {
            throw CommandError("cannot read \(path); check \(option)")
        }
        guard size <= limit else {
            throw CommandError("\(path) has \(size) bytes, more than the \(limit) that are read; use a part of it")
        }
        do {
            self.init(name: path, bytes: [UInt8](try Data(contentsOf: url)))
        } catch {
            throw CommandError("cannot read \(path): \(error)")
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
