/// A JSON value. Objects keep the order of their keys and numbers the way they were written, so that a value from a
/// request is written into a prompt exactly as the reference encoder (Python's `json`) would write it.
package enum JSONValue: Sendable {
    case null
    case bool(Bool)
    case number(JSONNumber)
    case string(String)
    case array([JSONValue])
    case object([JSONMember])
}

/// One key of an object with its value.
package struct JSONMember: Sendable, Equatable {
    package var key: String
    package var value: JSONValue

    package init(_ key: String, _ value: JSONValue) {
        self.key = key
        self.value = value
    }

    package static func list(_ members: KeyValuePairs<String, JSONValue>) -> [JSONMember] {
        members.map { JSONMember($0.key, $0.value) }
    }
}

/// Values are equal if they would be written identically; strings compare by code points, never by canonical
/// equivalence.
extension JSONValue: Equatable {
    package static func == (left: JSONValue, right: JSONValue) -> Bool {
        switch (left, right) {
        case (.null, .null): true
        case (.bool(let a), .bool(let b)): a == b
        case (.number(let a), .number(let b)): a == b
        case (.string(let a), .string(let b)): a.utf8.elementsEqual(b.utf8)
        case (.array(let a), .array(let b)): a == b
        case (.object(let a), .object(let b)):
            a.count == b.count
                && zip(a, b).allSatisfy { $0.key.utf8.elementsEqual($1.key.utf8) && $0.value == $1.value }
        default: false
        }
    }
}

// MARK: - Looking into a value

extension JSONValue {
    /// Returns the value of `key` in an object; `nil` if this is no object or lacks the key. It searches the members
    /// one by one, so code that reads many keys of a large object builds a dictionary of `JSONKey`s first.
    package subscript(key: String) -> JSONValue? {
        guard case .object(let members) = self else { return nil }
        return members.first { $0.key.utf8.elementsEqual(key.utf8) }?.value
    }

    package var string: String? {
        if case .string(let text) = self { text } else { nil }
    }

    package var bool: Bool? {
        if case .bool(let flag) = self { flag } else { nil }
    }

    /// The value as an integer; `nil` for fractions, other kinds and integers that do not fit.
    package var integer: Int? {
        if case .number(let number) = self { number.integer } else { nil }
    }

    /// The value as an integer, even if it is written with a point or an exponent; `nil` if it does not fit or is no
    /// number.
    package var wholeNumber: Int? {
        if case .number(let number) = self { number.wholeNumber } else { nil }
    }

    package var double: Double? {
        if case .number(let number) = self { number.double } else { nil }
    }

    package var array: [JSONValue]? {
        if case .array(let elements) = self { elements } else { nil }
    }

    package var object: [JSONMember]? {
        if case .object(let members) = self { members } else { nil }
    }

    package var isNull: Bool {
        if case .null = self { true } else { false }
    }
}

// MARK: - Making a value

extension JSONValue {
    /// Returns an object with these members, in this order.
    package static func fields(_ members: KeyValuePairs<String, JSONValue>) -> JSONValue {
        .object(JSONMember.list(members))
    }

    package static func integer(_ value: some BinaryInteger) -> JSONValue { .number(JSONNumber(Int(clamping: value))) }

    package static func optional(_ text: String?) -> JSONValue { text.map(JSONValue.string) ?? .null }
}

// MARK: - Naming a value in messages

extension JSONValue {
    /// The kind of this value in words, without its content, for messages to the client that sent it.
    package var kindName: String {
        switch self {
        case .null: "null"
        case .bool: "a boolean"
        case .number(let number): number.integer == nil ? "the number \(number.literal.prefix(32))" : "an integer"
        case .string: "a string"
        case .array: "an array"
        case .object: "an object"
        }
    }

    /// The value in a few words that are safe to log.
    package var summary: String {
        switch self {
        case .null: "null"
        case .bool(let value): "\(value)"
        case .number(let number): "\(number.literal.prefix(32))"
        case .string(let value): value.quotedForMessage
        case .array(let values): "an array of \(values.count)"
        case .object(let members): "an object of \(members.count) keys"
        }
    }
}
