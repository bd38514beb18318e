/// Says why a text is not accepted as JSON, and where.
package struct JSONError: Error, Equatable, Sendable, CustomStringConvertible {
    package var problem: String
    /// The number of bytes before the place where reading stopped.
    package let offset: Int
    /// The line of the error, counting from 1.
    package let line: Int
    /// The code point within the line, counting from 1.
    package let column: Int
    /// The path of the value being read, such as `messages[2].content`; it is empty at the top.
    package private(set) var path = ""

    /// Creates an error about `bytes`, found at `offset`.
    init(_ problem: String, in bytes: [UInt8], at offset: Int) {
        self.problem = problem
        self.offset = offset
        let before = bytes[..<min(offset, bytes.count)]
        let lineStart = before.lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? 0
        line = before.count { $0 == UInt8(ascii: "\n") } + 1
        column = before[lineStart...].count { $0 & 0xC0 != 0x80 } + 1
    }

    /// Returns the same error with the path extended by the object's member that was being read.
    func inside(member key: String) -> JSONError {
        let isPlain = !key.isEmpty && key.utf8.count <= 64 && key.utf8.allSatisfy(\.isNameByte)
        return inside((isPlain ? key : "[\(key.quotedForMessage)]"), separator: path.first == "[" ? "" : ".")
    }

    /// Returns the same error with the path extended by the array's element that was being read.
    func inside(element index: Int) -> JSONError {
        inside("[\(index)]", separator: path.first == "[" ? "" : ".")
    }

    private func inside(_ step: String, separator: String) -> JSONError {
        var outer = self
        outer.path = path.isEmpty ? step : step + separator + path
        return outer
    }

    package var description: String {
        let place = path.isEmpty ? "" : ", in \(path)"
        return "invalid JSON at line \(line), column \(column) (byte \(offset))\(place): \(problem)"
    }
}

extension UInt8 {
    fileprivate var isNameByte: Bool {
        UInt8(ascii: "a")...UInt8(ascii: "z") ~= self | 0x20 || UInt8(ascii: "0")...UInt8(ascii: "9") ~= self
            || self == UInt8(ascii: "_") || self == UInt8(ascii: "-")
    }
}
