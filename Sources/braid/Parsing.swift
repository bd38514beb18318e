import ArgumentParser
import Parallelism

/// All numbers and durations of the command line are read here. Each has a range; a value outside of it is refused with
/// the range and the nearest legal value. So no arithmetic on an option can overflow.
package enum Parsing {
    /// The maximum duration in seconds, which is a week.
    static let maxSeconds = 604_800
    /// The maximum number of repetitions; more are taken for a mistake.
    static let maxCount = 1_000_000
    /// The maximum number of tokens; no cache has more slots.
    static let maxTokens = Int(Int32.max)
    static let maxRanks = 65_536
    /// The maximum number of requests that are computed together.
    static let maxRequests = 65_536

    /// Reads a number of ranks. Which numbers are legal together, `ParallelRequest.resolve` tells.
    package static let ranks = count(0...ParallelRequest.maxRanks)

    /// Reads a whole number. As in vLLM's options it may end with `k` or `m` for thousands or millions, and with `K` or `M`
    /// for 1,024 or 1,048,576.
    package static func count(_ legal: ClosedRange<Int>) -> @Sendable (String) throws -> Int {
        { text in
            let units: [Character: Int] = ["k": 1000, "m": 1_000_000, "K": 1 << 10, "M": 1 << 20]
            return try whole(text, units, "a whole number", legal)
        }
    }

    /// Reads a number of bytes, which may be followed by a unit such as `MB` (1,000,000) or `MiB` (1,048,576).
    package static func bytes(_ legal: ClosedRange<Int>) -> @Sendable (String) throws -> Int {
        { text in
            let units = [
                ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("KB", 1000), ("kB", 1000),
                ("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000), ("B", 1),
            ]
            let unit = units.first { text.hasSuffix($0.0) }
            let digits = unit.map { String(text.dropLast($0.0.count)) } ?? text
            guard let number = Int(digits), number >= 0 else {
                throw ValidationError("it is not a number of bytes such as 20GiB or 500MB")
            }
            let (product, overflow) = number.multipliedReportingOverflow(by: unit?.1 ?? 1)
            guard !overflow, legal.contains(product) else {
                throw ValidationError("it is not between \(legal.lowerBound) and \(legal.upperBound) bytes")
            }
            return product
        }
    }

    /// Reads a duration in whole seconds: a number of them, or a number followed by `s`, `m` or `h`. As other engines
    /// print it, the number may have decimals, such as `300.0` or `1.5m`.
    package static func seconds(_ legal: ClosedRange<Int>) -> @Sendable (String) throws -> Int {
        { text in
            let units: [Character: Int] = ["s": 1, "m": 60, "h": 3600]
            let unit = text.last.flatMap { units[$0] }
            let parts = (unit == nil ? text[...] : text.dropLast()).split(
                separator: ".", omittingEmptySubsequences: false)
            guard parts.count == 2, parts.allSatisfy({ $0.allSatisfy { ("0"..."9").contains($0) } && !$0.isEmpty }),
                parts.allSatisfy({ $0.count <= 15 }), let number = Double(parts.joined(separator: "."))
            else { return try whole(text, units, "a duration in seconds", legal) }
            let seconds = number * Double(unit ?? 1)
            // Decimals of an hour have no exact binary form.
            guard abs(seconds - seconds.rounded()) < 1e-6, let value = Int(exactly: seconds.rounded()) else {
                throw ValidationError(
                    "it is \(seconds) seconds, no whole number of them between \(legal.lowerBound) and "
                        + "\(legal.upperBound)")
            }
            guard legal.contains(value) else { throw refusal(text, "a duration in seconds", legal, nearest: value) }
            return value
        }
    }

    /// Reads a whole number that may be followed by a unit.
    private static func whole(
        _ text: String, _ units: [Character: Int], _ kind: String, _ legal: ClosedRange<Int>
    ) throws -> Int {
        let unit = text.last.flatMap { units[$0] }
        let digits = unit == nil ? text : String(text.dropLast())
        guard let number = Int(digits) ?? beyond(digits) else { throw refusal(text, kind, legal) }
        let (product, overflow) = number.multipliedReportingOverflow(by: unit ?? 1)
        let value = overflow ? (number < 0 ? .min : .max) : product
        guard legal.contains(value) else { throw refusal(text, kind, legal, nearest: value) }
        return value
    }

    /// Reads a seed: any whole number of its type.
    package static func seed<Seed: FixedWidthInteger & UnsignedInteger & SendableMetatype>(
        _: Seed.Type = Seed.self
    ) -> @Sendable (String) throws -> Seed {
        { text in
            guard let seed = Seed(text) else {
                let nearest = beyond(text).map { "; the nearest legal value is \($0 < 0 ? Seed.min : Seed.max)" }
                throw ValidationError("it is not a whole number between 0 and \(Seed.max)\(nearest ?? "")")
            }
            return seed
        }
    }

    /// Reads a decimal number.
    package static func number(_ legal: ClosedRange<Double>) -> @Sendable (String) throws -> Double {
        { text in
            guard let number = decimal(text), legal.contains(number) else {
                throw ValidationError("it is not a number between \(legal.lowerBound) and \(legal.upperBound)")
            }
            return number
        }
    }

    /// Returns a number that is written in decimal, also with an exponent; `nil` for others, such as `0x10` and `nan`, which
    /// Swift would read, too.
    static func decimal(_ text: some StringProtocol) -> Double? {
        guard text.utf8.allSatisfy({ "0123456789+-.eE".utf8.contains($0) }) else { return nil }
        return Double(text)
    }

    /// Returns the largest or smallest integer for a number with too many digits; `nil` if the text is not a number.
    private static func beyond(_ text: String) -> Int? {
        let digits = text.drop { $0 == "-" || $0 == "+" }
        guard !digits.isEmpty, digits.allSatisfy(\.isASCII), digits.allSatisfy(\.isNumber) else { return nil }
        return text.first == "-" ? .min : .max
    }

    private static func refusal(
        _ text: String, _ kind: String, _ legal: ClosedRange<Int>, nearest number: Int? = nil
    ) -> ValidationError {
        let nearest = number.map {
            "; the nearest legal value is \(min(max($0, legal.lowerBound), legal.upperBound))"
        }
        return ValidationError(
            "it is not \(kind) between \(legal.lowerBound) and \(legal.upperBound)\(nearest ?? "")")
    }
}
