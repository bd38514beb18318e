package import JSON

/// The members of one JSON object of a request, which are read with the type and range each must have.
///
/// A member that is `null` counts as absent, unknown members are ignored, and every error names the member by its path.
struct RequestFields {
    /// The members in the request's order.
    let members: [JSONMember]
    /// The values by name, since a request may have millions of members.
    private let values: [JSONKey: JSONValue]
    /// The text before a member's name in messages: empty, or for example `messages[2].`.
    private let prefix: String

    /// Reads the members of `value`.
    ///
    /// - Parameter path: the name of the value in messages; `nil` for the request's body.
    /// - Throws: an error if `value` is not an object.
    init(_ value: JSONValue, path: String? = nil) throws(RequestError) {
        guard case .object(let members) = value else {
            throw .invalid(path, "\(path ?? "the request body") must be a JSON object, not \(value.kindName)")
        }
        self.members = members
        values = Dictionary(members.lazy.map { (JSONKey($0.key), $0.value) }) { $1 }
        prefix = path.map { $0 + "." } ?? ""
    }

    /// An object without members.
    static let empty = RequestFields()

    private init() {
        (members, values, prefix) = ([], [:], "")
    }

    /// Returns the path of a member, as messages show it.
    func path(of name: String) -> String { prefix + name }

    /// The names of all members, in the request's order.
    var names: [String] { members.map(\.key) }

    /// Returns the value of a member; `nil` if it is absent or `null`.
    func value(_ name: String) -> JSONValue? {
        guard let value = values[JSONKey(name)], !value.isNull else { return nil }
        return value
    }

    func string(_ name: String) throws(RequestError) -> String? {
        guard let value = value(name) else { return nil }
        guard let text = value.string else { throw Self.mismatch(path(of: name), "a string", value) }
        return text
    }

    func bool(_ name: String) throws(RequestError) -> Bool? {
        guard let value = value(name) else { return nil }
        return try Self.bool(value, path: path(of: name))
    }

    static func bool(_ value: JSONValue, path: String) throws(RequestError) -> Bool {
        guard let flag = value.bool else { throw mismatch(path, "true or false", value) }
        return flag
    }

    func array(_ name: String) throws(RequestError) -> [JSONValue]? {
        guard let value = value(name) else { return nil }
        guard let elements = value.array else { throw Self.mismatch(path(of: name), "an array", value) }
        return elements
    }

    func object(_ name: String) throws(RequestError) -> RequestFields? {
        guard let value = value(name) else { return nil }
        return try RequestFields(value, path: path(of: name))
    }

    /// Returns a whole number; `5.0` counts as 5.
    ///
    /// - Throws: an error for other values and for numbers outside `range`.
    func integer(_ name: String, in range: ClosedRange<Int>) throws(RequestError) -> Int? {
        guard let value = value(name) else { return nil }
        return try Self.integer(value, path: path(of: name), in: range)
    }

    static func integer(_ value: JSONValue, path: String, in range: ClosedRange<Int>) throws(RequestError) -> Int {
        guard let number = value.wholeNumber else {
            guard case .number(let number) = value, number.isWhole else { throw mismatch(path, "an integer", value) }
            throw .invalid(
                path,
                "\(path) is \(number.literal.prefix(32)); it must be in \(range.lowerBound)...\(range.upperBound)")
        }
        guard range.contains(number) else { throw .invalid(path, "\(path) is \(number); it must be \(range.words)") }
        return number
    }

    /// Returns a number in `range` other than `excluded`.
    func number(_ name: String, in range: ClosedRange<Double>, excluding excluded: Double? = nil) throws(RequestError)
        -> Double?
    {
        guard let value = value(name) else { return nil }
        return try Self.number(value, path: path(of: name), in: range, excluding: excluded)
    }

    static func number(
        _ value: JSONValue, path: String, in range: ClosedRange<Double>, excluding excluded: Double? = nil
    ) throws(RequestError) -> Double {
        guard case .number(let number) = value else {
            throw .invalid(path, "\(path) must be a number, not \(value.kindName)")
        }
        guard range.contains(number.double), number.double != excluded else {
            let least = excluded.map { "more than \($0)" } ?? "at least \(range.lowerBound)"
            throw .invalid(
                path, "\(path) is \(number.literal.prefix(32)); it must be \(least) and at most \(range.upperBound)")
        }
        return number.double
    }

    /// Returns a list of token ids, each within the vocabulary.
    func tokens(_ name: String, vocabularySize: Int, atMost limit: Int = .max) throws(RequestError) -> [Int32]? {
        guard let elements = try array(name) else { return nil }
        guard elements.count <= limit else {
            throw .invalid(path(of: name), "\(path(of: name)) has \(elements.count) entries; the most is \(limit)")
        }
        return try Self.tokens(elements, path: path(of: name), vocabularySize: vocabularySize)
    }

    static func tokens(_ elements: [JSONValue], path: String, vocabularySize: Int) throws(RequestError) -> [Int32] {
        var tokens: [Int32] = []
        tokens.reserveCapacity(elements.count)
        for (index, element) in elements.enumerated() {
            guard let id = element.wholeNumber else {
                throw .invalid(path, "\(path)[\(index)] must be a token id, not \(element.kindName)")
            }
            guard id >= 0, id < vocabularySize, let token = Int32(exactly: id) else {
                throw .invalid(
                    path, "\(path)[\(index)] is \(id); token ids of this model are 0 to \(vocabularySize - 1)")
            }
            tokens.append(token)
        }
        return tokens
    }

    private static func mismatch(_ path: String, _ expected: String, _ value: JSONValue) -> RequestError {
        .invalid(path, "\(path) must be \(expected), not \(value.kindName)")
    }
}

extension ClosedRange<Int> {
    fileprivate var words: String {
        upperBound == .max ? "at least \(lowerBound)" : "in \(lowerBound)...\(upperBound)"
    }
}

extension JSONNumber {
    /// True for a number without a fraction, however large.
    fileprivate var isWhole: Bool { double.rounded() == double }
}

extension JSONValue {
    /// Returns a finite number. JSON has no infinities: they become ±9999, which clients of this API know as "never".
    package static func number(_ value: some BinaryFloatingPoint) -> JSONValue {
        let finite = value.isFinite ? Double(value) : value.sign == .minus ? -9999 : 9999
        return JSONNumber(finite).map(JSONValue.number) ?? .null
    }

    /// Returns a setting as people write it: the shortest decimal that is rounded to this float, such as 0.7, not the
    /// digits of the float itself.
    static func setting(_ value: Float) -> JSONValue { number(Double(value.description) ?? Double(value)) }
}

extension RequestFields {
    /// Returns `cache_salt`; only requests whose salts are equal byte by byte use each other's cached prefixes.
    ///
    /// Swift also treats strings with different bytes as equal if they are canonically equivalent, so a salt that is
    /// not plain ASCII is replaced by the hexadecimal digits of its bytes.
    func cacheSalt(atMost limit: Int) throws(RequestError) -> String? {
        guard let value = value("cache_salt") else { return nil }
        return try Self.cacheSalt(value, path: path(of: "cache_salt"), atMost: limit)
    }

    static func cacheSalt(_ value: JSONValue, path: String, atMost limit: Int) throws(RequestError) -> String {
        guard let salt = value.string else { throw mismatch(path, "a string", value) }
        guard !salt.isEmpty else {
            throw .invalid(path, "\(path) is empty; leave it out to share cached prefixes with everybody")
        }
        guard salt.utf8.count <= limit else {
            throw .invalid(path, "\(path) has \(salt.utf8.count) bytes; the most is \(limit)")
        }
        let spelling = "utf8:"
        guard salt.utf8.allSatisfy({ $0 < 0x80 }), !salt.hasPrefix(spelling) else {
            return spelling + salt.utf8.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        }
        return salt
    }

    /// Returns a text that must be given.
    func requiredString(_ name: String) throws(RequestError) -> String {
        guard let text = try string(name) else { throw .invalid(path(of: name), "\(path(of: name)) is missing") }
        return text
    }

    /// Returns the id that the request gives itself, by which it can be aborted: `rid` or `request_id`.
    func requestID() throws(RequestError) -> String? {
        for name in Self.idNames {
            guard let id = try string(name) else { continue }
            try Self.checkID(id, name)
            return id
        }
        return nil
    }

    /// The members by which a request can give itself an id: SGLang's and vLLM's.
    static let idNames = ["rid", "request_id"]

    static func checkID(_ id: String, _ name: String) throws(RequestError) {
        guard id.utf8.count <= 256 else { throw .invalid(name, "\(name) is longer than 256 bytes, which is the most") }
    }

    /// Returns a member's value for each of `count` prompts. The member is one value for all of them, or a list with one
    /// value for each.
    ///
    /// - Parameter read: returns a value from its JSON and its path.
    func each<Value>(
        _ name: String, of count: Int, _ read: (JSONValue, String) throws(RequestError) -> Value
    ) throws(RequestError) -> [Value]? {
        guard let value = value(name) else { return nil }
        let path = path(of: name)
        guard let list = value.array else { return Array(repeating: try read(value, path), count: count) }
        guard list.count == count else {
            let entries = list.count == 1 ? "1 entry" : "\(list.count) entries"
            let prompts = count == 1 ? "there is 1 prompt" : "there are \(count) prompts"
            throw .invalid(path, "\(path) has \(entries), but \(prompts); give one value for all, or one for each")
        }
        var values: [Value] = []
        for (index, element) in list.enumerated() { values.append(try read(element, "\(path)[\(index)]")) }
        return values
    }

    /// Refuses a list of more prompts than a request may have, before any of them is read. A list of token ids is one
    /// prompt.
    func checkPrompts(_ name: String, choices: Int, most: Int) throws(RequestError) {
        guard let elements = value(name)?.array, let first = elements.first else { return }
        if case .number = first { return }
        try Self.checkCount(elements.count, of: name, choices: choices, most: most)
    }

    /// Refuses more prompts than a request may have.
    static func checkCount(_ count: Int, of name: String, choices: Int, most: Int) throws(RequestError) {
        guard count <= most / max(choices, 1) else {
            throw .invalid(
                name, "\(count) prompts with n = \(choices) are more than the \(most) answers a request may ask for")
        }
    }
}
