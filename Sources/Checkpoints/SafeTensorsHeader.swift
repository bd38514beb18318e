import JSON

/// The checked header of a safetensors file: every tensor lies inside the file, is aligned for its type, overlaps no
/// other, and all tensors together cover the data without a gap.
///
/// The format is <https://github.com/huggingface/safetensors>: an unsigned 64-bit little-endian length, a JSON object
/// of that length (spaces may follow it), then the data, whose offsets count from its own start. This reader is
/// stricter than the format: it refuses unknown fields, control characters in names and unaligned tensors.
struct SafeTensorsHeader {
    struct Entry {
        let name: String
        let type: StoredType
        let shape: [Int]
        /// The byte range of the tensor, counted from the start of the data.
        let range: Range<Int>
    }

    /// The limit of the reference reader.
    static let maximumBytes = 100_000_000
    static let maximumTensors = 500_000
    static let maximumNameBytes = 1024
    static let maximumRank = 16

    /// The tensors in the order of the header.
    let entries: [Entry]
    /// Maps each name to its index in `entries`.
    let places: [String: Int]
    let metadata: [String: String]

    /// Reads and checks the header.
    ///
    /// - Parameters:
    ///   - bytes: the JSON text and the spaces after it.
    ///   - dataStart: the offset of the data in the file.
    ///   - dataBytes: the number of bytes of data.
    ///   - file: the name of the file in errors.
    init(_ bytes: [UInt8], dataStart: Int, dataBytes: Int, file: String) throws(CheckpointError) {
        guard bytes.first == UInt8(ascii: "{") else {
            throw CheckpointError(
                file: file, problem: "the header does not begin with {", advice: CheckpointError.damagedFile)
        }
        var parser = Parser(dataStart: dataStart, dataBytes: dataBytes)
        do throws(JSONError) {
            var scanner = try JSONScanner(bytes)
            try parser.parse(&scanner)
        } catch {
            throw CheckpointError(
                file: file, subject: parser.current.map { .tensor($0) } ?? .file,
                problem: "header byte \(error.offset): \(error.problem)", advice: CheckpointError.damagedFile)
        }
        entries = parser.entries
        places = parser.places
        metadata = parser.metadata ?? [:]
        try Self.checkCoverage(entries, dataBytes: dataBytes, file: file)
    }

    /// Requires that the tensors, in the order of their offsets, cover the data from the first to the last byte.
    private static func checkCoverage(
        _ entries: [Entry], dataBytes: Int, file: String
    ) throws(CheckpointError) {
        let order = entries.indices.sorted {
            let (a, b) = (entries[$0].range, entries[$1].range)
            return (a.lowerBound, a.upperBound, $0) < (b.lowerBound, b.upperBound, $1)
        }
        var end = 0
        var previous: String?
        for entry in order.lazy.map({ entries[$0] }) {
            guard entry.range.lowerBound == end else {
                let before = previous.map { "tensor \($0.quotedForMessage)" } ?? "the start of the data"
                let problem =
                    entry.range.lowerBound < end
                    ? "overlaps \(before), which ends at byte \(end) of the data"
                    : "leaves a hole of \(entry.range.lowerBound - end) bytes after \(before)"
                throw CheckpointError(
                    file: file, subject: .tensor(entry.name),
                    problem: "data_offsets \(entry.range.offsetsText): \(problem)",
                    advice: CheckpointError.damagedFile)
            }
            end = entry.range.upperBound
            previous = entry.name
        }
        guard end == dataBytes else {
            throw CheckpointError(
                file: file,
                problem: "\(dataBytes - end) of \(dataBytes) bytes of data belong to no tensor",
                advice: CheckpointError.damagedFile)
        }
    }
}

extension Range<Int> {
    fileprivate var offsetsText: String { "[\(lowerBound), \(upperBound)]" }
}

extension SafeTensorsHeader {
    /// Collects entries; `current` names the tensor whose entry is being read, for the error message.
    private struct Parser {
        let dataStart: Int
        let dataBytes: Int
        var entries: [Entry] = []
        var places: [String: Int] = [:]
        var metadata: [String: String]?
        var current: String?

        mutating func parse(_ scanner: inout JSONScanner) throws(JSONError) {
            if try scanner.enterObject() {
                repeat {
                    let name = try scanner.key()
                    if name == "__metadata__" {
                        guard metadata == nil else { throw scanner.failure("the key __metadata__ occurs twice") }
                        metadata = try parseMetadata(&scanner)
                    } else {
                        current = name
                        try checkName(name, scanner)
                        try parseEntry(name, &scanner)
                        current = nil
                    }
                } while try scanner.nextMember()
            }
            try scanner.end(allowing: [UInt8(ascii: " ")])
        }

        private func parseMetadata(_ scanner: inout JSONScanner) throws(JSONError) -> [String: String] {
            var metadata: [String: String] = [:]
            guard try scanner.enterObject() else { return metadata }
            repeat {
                let key = try scanner.key()
                guard scanner.peek() == UInt8(ascii: "\"") else {
                    throw scanner.unexpected("a string for \(key.quotedForMessage) of __metadata__")
                }
                guard try metadata.updateValue(scanner.string(), forKey: key) == nil else {
                    throw scanner.failure("the key \(key.quotedForMessage) of __metadata__ occurs twice")
                }
            } while try scanner.nextMember()
            return metadata
        }

        private func checkName(_ name: String, _ scanner: JSONScanner) throws(JSONError) {
            let length = name.utf8.count
            guard (1...SafeTensorsHeader.maximumNameBytes).contains(length) else {
                throw scanner.failure(
                    "a tensor name has \(length) bytes; 1 to \(SafeTensorsHeader.maximumNameBytes) are allowed")
            }
            guard !name.hasControlCharacters else {
                throw scanner.failure("the tensor name holds a control character")
            }
            guard entries.count < SafeTensorsHeader.maximumTensors else {
                throw scanner.failure("the file has more than \(SafeTensorsHeader.maximumTensors) tensors")
            }
        }

        private mutating func parseEntry(_ name: String, _ scanner: inout JSONScanner) throws(JSONError) {
            let start = scanner.position
            var type: StoredType?
            var shape: [Int]?
            var offsets: [Int]?
            guard try scanner.enterObject() else { throw scanner.failure("the entry is empty", at: start) }
            repeat {
                let field = try scanner.key()
                switch field {
                case "dtype" where type == nil: type = try parseType(&scanner)
                case "shape" where shape == nil: shape = try counts(&scanner, "shape", SafeTensorsHeader.maximumRank)
                case "data_offsets" where offsets == nil: offsets = try counts(&scanner, "data_offsets", 2)
                case "dtype", "shape", "data_offsets": throw scanner.failure("the key \(field) occurs twice")
                default: throw scanner.failure("the field \(field.quotedForMessage) is unknown")
                }
            } while try scanner.nextMember()
            guard let type, let shape, let offsets else {
                let missing = [(type == nil, "dtype"), (shape == nil, "shape"), (offsets == nil, "data_offsets")]
                throw scanner.failure(
                    "the entry lacks " + missing.filter(\.0).map(\.1).joined(separator: " and "), at: start)
            }
            do throws(Flaw) {
                let range = try dataRange(offsets, type, shape)
                guard places.updateValue(entries.count, forKey: name) == nil else {
                    throw Flaw("the name occurs twice in the header")
                }
                entries.append(Entry(name: name, type: type, shape: shape, range: range))
            } catch {
                throw scanner.failure(error.problem, at: start)
            }
        }

        private func parseType(_ scanner: inout JSONScanner) throws(JSONError) -> StoredType {
            let start = scanner.position
            let text = try scanner.string()
            guard let type = StoredType(rawValue: text) else {
                let known = StoredType.allCases.map(\.rawValue).joined(separator: ", ")
                throw scanner.failure("dtype \(text.quotedForMessage) is unknown (known: \(known))", at: start)
            }
            return type
        }

        private func counts(
            _ scanner: inout JSONScanner, _ field: String, _ limit: Int
        ) throws(JSONError) -> [Int] {
            var values: [Int] = []
            guard scanner.peek() == UInt8(ascii: "[") else { throw scanner.unexpected("an array for \(field)") }
            guard try scanner.enterArray() else { return values }
            repeat {
                guard values.count < limit else { throw scanner.failure("\(field) has more than \(limit) numbers") }
                do throws(JSONError) {
                    values.append(try scanner.count())
                } catch {
                    var error = error
                    error.problem = "\(field): \(error.problem)"
                    throw error
                }
            } while try scanner.nextElement()
            return values
        }

        private struct Flaw: Error {
            let problem: String
            init(_ problem: String) { self.problem = problem }
        }

        /// Returns the tensor's range in the data after checking that it is inside, aligned, and as long as type and
        /// shape require.
        private func dataRange(_ offsets: [Int], _ type: StoredType, _ shape: [Int]) throws(Flaw) -> Range<Int> {
            guard offsets.count == 2 else {
                throw Flaw("data_offsets has \(offsets.count) numbers instead of 2")
            }
            let (begin, end) = (offsets[0], offsets[1])
            guard begin <= end else { throw Flaw("data_offsets [\(begin), \(end)] end before they begin") }
            guard end <= dataBytes else {
                throw Flaw(
                    "data_offsets [\(begin), \(end)] lie outside the file, which holds \(dataBytes) bytes of data")
            }
            var size = type.bytes
            for extent in shape {
                let (product, overflow) = size.multipliedReportingOverflow(by: extent)
                guard !overflow else { throw Flaw("the shape \(shape) overflows 64 bits") }
                size = product
            }
            guard end - begin == size else {
                throw Flaw(
                    "shape \(shape) of \(type.rawValue) takes \(size) bytes, "
                        + "but data_offsets [\(begin), \(end)] hold \(end - begin)"
                )
            }
            // Mappings begin at a page, so the offset in the file determines the alignment in memory.
            guard size == 0 || (dataStart + begin) % type.bytes == 0 else {
                throw Flaw(
                    "begins at byte \(dataStart + begin) of the file, "
                        + "which is not a multiple of the \(type.bytes) bytes of \(type.rawValue)"
                )
            }
            return begin..<end
        }
    }
}
