/// The samples of a page in Prometheus' text format, version 0.0.4, as a server at an address that somebody typed has
/// sent it: every line is checked, and the page is bounded.
package struct MetricsText: Sendable, Equatable {
    package struct Sample: Sendable, Hashable {
        package let name: String
        /// Sorted by name.
        package let labels: [Label]
    }

    package struct Label: Sendable, Hashable {
        package let name: String
        package let value: String
    }

    /// Why a page is refused.
    package struct Problem: Error, Equatable, CustomStringConvertible {
        package let description: String
    }

    private(set) var values: [Sample: Double] = [:]
    private var samples: [String: [Sample]] = [:]

    package static let maxBytes = 16 << 20
    package static let maxLineBytes = 64 << 10
    package static let maxSamples = 200_000
    package static let maxLabels = 64

    /// - Throws: `Problem` naming the line that is no line of the format, or the bound that is exceeded.
    package init(_ page: [UInt8]) throws(Problem) {
        guard page.count <= Self.maxBytes else {
            throw Problem(description: "the page of metrics is larger than \(Self.maxBytes) bytes")
        }
        var (start, number) = (0, 0)
        while start < page.count {
            let end = page[start...].firstIndex(of: UInt8(ascii: "\n")) ?? page.count
            let line = page[start..<end]
            (start, number) = (end + 1, number + 1)
            var reader = LineReader(line, number: number)
            guard line.count <= Self.maxLineBytes else { throw reader.problem("is too long") }
            guard let (sample, value) = try reader.sample() else { continue }
            guard values.updateValue(value, forKey: sample) == nil else {
                throw reader.problem("repeats a series of \(sample.name)")
            }
            guard values.count <= Self.maxSamples else { throw reader.problem("is one sample too many") }
            samples[sample.name, default: []].append(sample)
        }
    }

    /// Returns the value of the only series with a name; `nil` if there is none.
    ///
    /// - Throws: `Problem` if there are several, or the value is no number from 0 on, as counters and sums are.
    package func amount(_ name: String) throws(Problem) -> Double? {
        guard let found = samples[name] else { return nil }
        guard found.count == 1, let value = values[found[0]] else {
            throw Problem(description: "there are \(found.count) series of \(name), where one server has one")
        }
        guard value.isFinite, value >= 0 else {
            throw Problem(description: "\(name) is \(value), which is no amount")
        }
        return value
    }
}

/// Reads one line of a page of metrics.
private struct LineReader {
    private let bytes: ArraySlice<UInt8>
    private let number: Int
    private var place: Int

    init(_ bytes: ArraySlice<UInt8>, number: Int) {
        self.bytes = bytes
        self.number = number
        place = bytes.startIndex
    }

    func problem(_ what: String) -> MetricsText.Problem {
        MetricsText.Problem(description: "line \(number) of the page of metrics \(what)")
    }

    /// Returns the line's sample and its value; `nil` for a comment and for an empty line.
    mutating func sample() throws(MetricsText.Problem) -> (MetricsText.Sample, Double)? {
        skipBlanks()
        guard let first = next, first != UInt8(ascii: "#") else { return nil }
        let name = try name(allowingColon: true)
        skipBlanks()
        let labels = try labels()
        let value = try word { Self.value($0) }
        guard let value else { throw problem("has no value") }
        if next != nil {
            // Milliseconds since 1970, which nobody needs here.
            guard try word({ Int($0) }) != nil, next == nil else { throw problem("does not end behind its value") }
        }
        return (MetricsText.Sample(name: name, labels: labels.sorted { $0.name < $1.name }), value)
    }

    private var next: UInt8? { place < bytes.endIndex ? bytes[place] : nil }

    private mutating func skipBlanks() {
        while let byte = next, byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") { place += 1 }
    }

    /// Takes a byte if it comes next.
    private mutating func take(_ byte: Unicode.Scalar) -> Bool {
        guard next == UInt8(ascii: byte) else { return false }
        place += 1
        return true
    }

    private mutating func name(allowingColon: Bool) throws(MetricsText.Problem) -> String {
        let start = place
        while let byte = next {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "_"): break
            case UInt8(ascii: "0")...UInt8(ascii: "9") where place > start: break
            case UInt8(ascii: ":") where allowingColon: break
            default: return try found(start)
            }
            place += 1
        }
        return try found(start)
    }

    private func found(_ start: Int) throws(MetricsText.Problem) -> String {
        guard place > start else { throw problem("has no name where one must be") }
        return String(decoding: bytes[start..<place], as: UTF8.self)
    }

    private mutating func labels() throws(MetricsText.Problem) -> [MetricsText.Label] {
        guard take("{") else { return [] }
        var labels: [MetricsText.Label] = []
        skipBlanks()
        while !take("}") {
            let name = try name(allowingColon: false)
            skipBlanks()
            guard take("=") else { throw problem("has a label without a value") }
            skipBlanks()
            labels.append(MetricsText.Label(name: name, value: try quoted()))
            skipBlanks()
            guard take(",") || next == UInt8(ascii: "}") else { throw problem("has labels that do not end") }
            skipBlanks()
            guard labels.count <= MetricsText.maxLabels else { throw problem("has too many labels") }
        }
        guard Set(labels.map(\.name)).count == labels.count else { throw problem("repeats a label") }
        skipBlanks()
        return labels
    }

    private mutating func quoted() throws(MetricsText.Problem) -> String {
        guard take("\"") else { throw problem("has a label without quotation marks") }
        var text: [UInt8] = []
        while let byte = next {
            place += 1
            switch byte {
            case UInt8(ascii: "\""):
                guard let text = String(validating: text, as: UTF8.self) else { throw problem("is no UTF-8") }
                return text
            case UInt8(ascii: "\\"):
                switch next {
                case UInt8(ascii: "n"): text.append(UInt8(ascii: "\n"))
                case UInt8(ascii: "\\"), UInt8(ascii: "\""): text.append(next!)
                default: throw problem("has a backslash before something else than n, a backslash or a quotation mark")
                }
                place += 1
            default: text.append(byte)
            }
        }
        throw problem("has a label that does not end")
    }

    /// Reads the word that comes next, and what blanks follow.
    private mutating func word<Value>(_ read: (String) -> Value?) throws(MetricsText.Problem) -> Value? {
        let start = place
        while let byte = next, byte != UInt8(ascii: " "), byte != UInt8(ascii: "\t") { place += 1 }
        guard place > start else { return nil }
        guard let value = read(String(decoding: bytes[start..<place], as: UTF8.self)) else {
            throw problem("has something else than a number where one must be")
        }
        skipBlanks()
        return value
    }

    private static func value(_ word: String) -> Double? {
        switch word {
        case "NaN": .nan
        case "+Inf", "Inf": .infinity
        case "-Inf": -.infinity
        default: word.utf8.allSatisfy { "0123456789+-.eE".utf8.contains($0) } ? Double(word) : nil
        }
    }
}
