import JSON

/// Reads one object of a configuration file by key.
///
/// Every accessor throws an error that names the file and the key's path from the top, what was found and what is
/// expected. Without a `default:` a key is required. With one, a missing key and `null` both give the default, since
/// released files use both. A value of the wrong kind is never converted, with one exception: a number such as `1e6`
/// counts as a whole number if it is exactly one.
package struct ConfigurationValue: Sendable {
    /// The file that the object came from.
    package let file: String
    /// The path of the object: keys joined by dots, empty at the top.
    package let path: String
    private let members: [JSONKey: JSONValue]

    /// Creates an object from its members.
    ///
    /// - Parameter members: members with distinct keys.
    init(file: String, path: String, members: [JSONMember]) {
        self.file = file
        self.path = path
        self.members = Dictionary(uniqueKeysWithValues: members.lazy.map { (JSONKey($0.key), $0.value) })
    }

    private subscript(key: String) -> JSONValue? { members[JSONKey(key)] }

    /// The keys, sorted.
    package var keys: [String] { members.keys.map(\.text).sorted() }

    /// Returns true if the key exists, even if its value is `null`.
    package func contains(_ key: String) -> Bool { self[key] != nil }

    /// Returns true if the key exists and its value is `null`.
    package func isNull(_ key: String) -> Bool { self[key]?.isNull == true }

    /// Returns true if the key has a value that asks for something: none of null, false, an empty array or object, and the
    /// number `neutral`.
    package func asks(for key: String, neutral: Double) -> Bool {
        switch self[key] {
        case nil, .null?, .bool(false)?: false
        case .array(let elements)?: !elements.isEmpty
        case .object(let members)?: !members.isEmpty
        case let value?: value.double != neutral
        }
    }

    /// Requires that no key is null for which other software then computes something else than without the key, or nothing.
    ///
    /// - Throws: naming the first such key.
    package func requireNotNull(_ keys: String...) throws(CheckpointError) {
        for key in keys where isNull(key) {
            throw refusal(
                key, "is null, which implementations read differently",
                advice: "give its value, or leave out the key to take the released models' one")
        }
    }

    /// Returns an error about a key of this object, for rules that concern more than one key.
    package func refusal(_ key: String, _ problem: String, advice: String) -> CheckpointError {
        CheckpointError(file: file, subject: .key(keyPath(key)), problem: problem, advice: advice)
    }

    private func keyPath(_ key: String) -> String { path.isEmpty ? key : path + "." + key }

    private func required(_ key: String, _ expected: String) throws(CheckpointError) -> JSONValue {
        guard let node = self[key] else {
            throw refusal(
                key, "is missing; \(expected) is expected", advice: "add it, or use the model's original file")
        }
        return node
    }

    private func present(_ key: String) -> JSONValue? { isNull(key) ? nil : self[key] }

    private func mismatch(_ key: String, _ node: JSONValue, _ expected: String) -> CheckpointError {
        refusal(
            key, "is \(node.summary) where \(expected) is expected",
            advice: "correct it, or use the model's original file")
    }
}

// MARK: - Numbers

extension ConfigurationValue {
    /// Reads a whole number in `range`.
    package func int(_ key: String, in range: ClosedRange<Int>) throws(CheckpointError) -> Int {
        try int(required(key, Self.expected(range)), key, range)
    }

    /// Reads a whole number in `range`; `default` if the key is missing or null.
    package func int(_ key: String, in range: ClosedRange<Int>, default: Int) throws(CheckpointError) -> Int {
        guard let node = present(key) else { return `default` }
        return try int(node, key, range)
    }

    /// Reads a finite number in `range`.
    package func double(_ key: String, in range: ClosedRange<Double>) throws(CheckpointError) -> Double {
        try double(required(key, Self.expected(range)), key, range)
    }

    /// Reads a finite number in `range`; `default` if the key is missing or null.
    package func double(
        _ key: String, in range: ClosedRange<Double>, default: Double
    ) throws(CheckpointError) -> Double {
        guard let node = present(key) else { return `default` }
        return try double(node, key, range)
    }

    /// Reads an array of whole numbers in `range`, with a length in `count`.
    ///
    /// - Parameter acceptingSingle: whether a single number stands for an array of it, as in `eos_token_id`.
    package func intArray(
        _ key: String, in range: ClosedRange<Int>, count: ClosedRange<Int> = 0...1_000_000,
        acceptingSingle: Bool = false
    ) throws(CheckpointError) -> [Int] {
        let expected = "an array of \(Self.text(count)) numbers, each \(Self.expected(range)),"
        let node = try required(key, expected)
        guard case .array(let nodes) = node, count.contains(nodes.count) else {
            if acceptingSingle, node.integer != nil { return [try int(node, key, range)] }
            throw mismatch(key, node, expected)
        }
        var values: [Int] = []
        for (place, node) in nodes.enumerated() {
            values.append(try int(node, "\(key)[\(place)]", range))
        }
        return values
    }

    private func int(_ node: JSONValue, _ key: String, _ range: ClosedRange<Int>) throws(CheckpointError) -> Int {
        guard let value = node.wholeNumber, range.contains(value) else {
            throw mismatch(key, node, Self.expected(range))
        }
        return value
    }

    private func double(
        _ node: JSONValue, _ key: String, _ range: ClosedRange<Double>
    ) throws(CheckpointError) -> Double {
        guard let value = node.double, value.isFinite, range.contains(value) else {
            throw mismatch(key, node, Self.expected(range))
        }
        return value
    }

    private static func expected(_ range: ClosedRange<Int>) -> String { "a whole number from \(text(range))" }

    private static func expected(_ range: ClosedRange<Double>) -> String {
        "a number from \(range.lowerBound) to \(range.upperBound)"
    }

    private static func text(_ range: ClosedRange<Int>) -> String {
        range.upperBound == .max ? "\(range.lowerBound) on" : "\(range.lowerBound) to \(range.upperBound)"
    }
}

// MARK: - Other kinds

extension ConfigurationValue {
    /// Reads `true` or `false`.
    package func bool(_ key: String) throws(CheckpointError) -> Bool {
        try bool(required(key, "true or false"), key)
    }

    /// Reads `true` or `false`; `default` if the key is missing or null.
    package func bool(_ key: String, default: Bool) throws(CheckpointError) -> Bool {
        guard let node = present(key) else { return `default` }
        return try bool(node, key)
    }

    /// Reads a string; one of `allowed`, if given.
    package func string(_ key: String, oneOf allowed: [String]? = nil) throws(CheckpointError) -> String {
        try string(required(key, Self.expected(allowed)), key, allowed)
    }

    /// Reads a string; `default` if the key is missing or null.
    package func string(
        _ key: String, oneOf allowed: [String]? = nil, default: String
    ) throws(CheckpointError) -> String {
        guard let node = present(key) else { return `default` }
        return try string(node, key, allowed)
    }

    /// Reads an array of strings, each one of `allowed`, with a length in `count`.
    package func stringArray(
        _ key: String, oneOf allowed: [String], count: ClosedRange<Int>
    ) throws(CheckpointError) -> [String] {
        let expected = "an array of \(Self.text(count)) strings"
        let node = try required(key, expected)
        guard case .array(let nodes) = node, count.contains(nodes.count) else { throw mismatch(key, node, expected) }
        var values: [String] = []
        for (place, node) in nodes.enumerated() {
            values.append(try string(node, "\(key)[\(place)]", allowed))
        }
        return values
    }

    /// Reads an object within this one.
    package func object(_ key: String) throws(CheckpointError) -> ConfigurationValue {
        try object(required(key, "an object {…}"), key)
    }

    /// Reads an object within this one; nil if the key is missing or null.
    package func objectIfPresent(_ key: String) throws(CheckpointError) -> ConfigurationValue? {
        guard let node = present(key) else { return nil }
        return try object(node, key)
    }

    private func bool(_ node: JSONValue, _ key: String) throws(CheckpointError) -> Bool {
        guard case .bool(let value) = node else { throw mismatch(key, node, "true or false") }
        return value
    }

    private func string(_ node: JSONValue, _ key: String, _ allowed: [String]?) throws(CheckpointError) -> String {
        guard case .string(let value) = node, allowed?.contains(value) ?? true else {
            throw mismatch(key, node, Self.expected(allowed))
        }
        return value
    }

    private func object(_ node: JSONValue, _ key: String) throws(CheckpointError) -> ConfigurationValue {
        guard case .object(let members) = node else { throw mismatch(key, node, "an object {…}") }
        return ConfigurationValue(file: file, path: keyPath(key), members: members)
    }

    private static func expected(_ allowed: [String]?) -> String {
        guard let allowed else { return "a string" }
        return "one of " + allowed.map(\.quotedForMessage).joined(separator: ", ")
    }
}
