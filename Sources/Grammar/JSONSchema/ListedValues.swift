import JSON

/// The values that `enum` or `const` lists. Values are equal as JSON Schema says: numbers by value, objects without
/// order.
struct ListedValues {
    /// The values in the order of the schema, as it writes them.
    let all: [JSONValue]
    private let keys: [[UInt8]]
    private let known: Set<[UInt8]>

    init(_ values: [JSONValue]) throws(GrammarError) {
        var keys: [[UInt8]] = []
        for (index, value) in values.enumerated() {
            try GrammarWork.check(index, every: 256)
            keys.append(value.equalityKey)
        }
        self.init(values, keys)
    }

    private init(_ values: [JSONValue], _ keys: [[UInt8]]) {
        (all, self.keys, known) = (values, keys, Set(keys))
    }

    func contains(_ value: JSONValue) -> Bool { known.contains(value.equalityKey) }

    /// Returns the values that another list has too.
    func common(with other: ListedValues) -> ListedValues {
        let kept = keys.indices.filter { other.known.contains(keys[$0]) }
        return ListedValues(kept.map { all[$0] }, kept.map { keys[$0] })
    }
}

extension JSONValue {
    /// Bytes that two values share if and only if JSON Schema counts them as equal.
    fileprivate var equalityKey: [UInt8] {
        var bytes: [UInt8] = []
        appendEqualityKey(to: &bytes)
        return bytes
    }

    private func appendEqualityKey(to bytes: inout [UInt8]) {
        switch self {
        case .null: bytes.append(UInt8(ascii: "n"))
        case .bool(let flag): bytes.append(UInt8(ascii: flag ? "t" : "f"))
        case .string(let text): Self.append(text, to: &bytes)
        case .number(let number):
            guard let value = DecimalNumber(number) else {
                // It has too many digits to be compared by value.
                bytes += "~\(number.literal);".utf8
                return
            }
            bytes.append(UInt8(ascii: value.isNegative ? "-" : "+"))
            bytes += value.integer
            bytes.append(UInt8(ascii: "."))
            bytes += value.fraction
            bytes.append(UInt8(ascii: ";"))
        case .array(let elements):
            bytes.append(UInt8(ascii: "["))
            for element in elements { element.appendEqualityKey(to: &bytes) }
            bytes.append(UInt8(ascii: "]"))
        case .object(let members):
            bytes.append(UInt8(ascii: "{"))
            for member in members.sorted(by: { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }) {
                Self.append(member.key, to: &bytes)
                member.value.appendEqualityKey(to: &bytes)
            }
            bytes.append(UInt8(ascii: "}"))
        }
    }

    /// Appends a string with its length, so that no other text can continue it.
    private static func append(_ text: String, to bytes: inout [UInt8]) {
        bytes += "\"\(text.utf8.count):".utf8
        bytes += text.utf8
    }
}
