/// This reader reads comma-separated values as RFC 4180 defines them: fields in quotes may hold commas, line ends and
/// doubled quotes.
package enum CommaSeparatedValues {
    package struct Record: Sendable, Equatable {
        /// The number of the record's first line, from 1.
        package let line: Int
        package let fields: [String]
    }

    /// Returns all records. Blank lines between records and a byte order mark at the beginning are left out.
    ///
    /// - Throws: `CommandError` that names file and line for quotes that do not close, text after a closing quote, and
    ///   bytes that are not UTF-8.
    package static func records(in file: DataFile) throws -> [Record] {
        guard String(validating: file.bytes, as: UTF8.self) != nil else {
            let line = file.lines.first { String(validating: $0.bytes, as: UTF8.self) == nil }?.number
            throw file.problem(line: line ?? 1, "the text is not UTF-8", advice: "convert the file to UTF-8")
        }
        var reader = Reader(file: file)
        return try reader.records()
    }

    private struct Reader {
        let file: DataFile
        var at = 0
        var line = 1

        init(file: DataFile) {
            self.file = file
            if file.bytes.starts(with: [0xEF, 0xBB, 0xBF]) { at = 3 }
        }

        var peek: UInt8? { at < file.bytes.count ? file.bytes[at] : nil }
        /// True if a line ends here: at LF, CR LF, or the end of the file.
        var isAtLineEnd: Bool {
            guard let byte = peek else { return true }
            return byte == UInt8(ascii: "\n")
                || byte == UInt8(ascii: "\r")
                    && (at + 1 == file.bytes.count || file.bytes[at + 1] == UInt8(ascii: "\n"))
        }

        mutating func skipLineEnd() {
            if peek == UInt8(ascii: "\r") { at += 1 }
            if peek == UInt8(ascii: "\n") { at += 1 }
            line += 1
        }

        mutating func records() throws -> [Record] {
            var records: [Record] = []
            while at < file.bytes.count {
                if isAtLineEnd {
                    skipLineEnd()
                } else {
                    records.append(try record())
                }
            }
            return records
        }

        mutating func record() throws -> Record {
            let start = line
            var fields = [try field()]
            while peek == UInt8(ascii: ",") {
                at += 1
                fields.append(try field())
            }
            skipLineEnd()
            return Record(line: start, fields: fields)
        }

        mutating func field() throws -> String {
            if peek == UInt8(ascii: "\"") { return try quoted() }
            let start = at
            while !isAtLineEnd, peek != UInt8(ascii: ",") { at += 1 }
            return String(decoding: file.bytes[start..<at], as: UTF8.self)
        }

        mutating func quoted() throws -> String {
            let opening = line
            var bytes: [UInt8] = []
            at += 1
            while let byte = peek {
                at += 1
                if byte == UInt8(ascii: "\n") { line += 1 }
                guard byte == UInt8(ascii: "\"") else {
                    bytes.append(byte)
                    continue
                }
                if peek == byte {
                    bytes.append(byte)
                    at += 1
                    continue
                }
                guard isAtLineEnd || peek == UInt8(ascii: ",") else {
                    throw file.problem(
                        line: line, "something follows a closing quote",
                        advice: "double quotes that belong to a field (\"\"), and end fields with a comma")
                }
                return String(decoding: bytes, as: UTF8.self)
            }
            throw file.problem(line: opening, "a quote is opened and never closed", advice: "close it, or double it")
        }
    }
}
