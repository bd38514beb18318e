import Foundation

/// A file of questions or text, which is the user's and may be anything.
package struct DataFile: Sendable {
    /// As the user knows it, for messages.
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
    ///   - option: what the user gave it as.
    ///   - limit: bytes of the file, at most.
    /// - Throws: `CommandError` where there is no such file, or it is larger.
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

    /// A problem with what lies at a line.
    ///
    /// - Parameters:
    ///   - line: from 1.
    ///   - advice: what to do about it.
    package func problem(line: Int, _ what: String, advice: String) -> any Error {
        CommandError("\(name):\(line): \(what); \(advice)")
    }

    /// The lines that are not blank, with their numbers from 1.
    package var lines: [(number: Int, bytes: ArraySlice<UInt8>)] {
        bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated()
            .map { (number: $0 + 1, bytes: $1) }
            .filter { !$0.bytes.allSatisfy { $0 == UInt8(ascii: " ") || (9...13).contains($0) } }
    }
}
