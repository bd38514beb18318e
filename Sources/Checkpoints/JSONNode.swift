/// A JSON text as a tree of values, bounded in depth; duplicate keys are refused when it is read.
enum JSONNode: Sendable, Equatable {
    case null
    case bool(Bool)
    case whole(Int64)
    case real(Double)
    case string(String)
    case array([JSONNode])
    case object([String: JSONNode])

    /// Reads a whole text.
    ///
    /// - Parameter maximumDepth: how many objects and arrays may be open at once.
    init(_ bytes: [UInt8], maximumDepth: Int) throws(JSONError) {
        var scanner = try JSONScanner(bytes)
        self = try Self.read(&scanner, depth: maximumDepth)
        if scanner.peek() != nil { throw scanner.failure("something follows the end of the JSON text") }
    }

    private static func read(_ scanner: inout JSONScanner, depth: Int) throws(JSONError) -> JSONNode {
        switch scanner.peek() {
        case UInt8(ascii: "{"): return .object(try members(&scanner, depth: depth))
        case UInt8(ascii: "["): return .array(try elements(&scanner, depth: depth))
        case UInt8(ascii: "\""): return .string(try scanner.string())
        case UInt8(ascii: "t") where scanner.takeWord("true"): return .bool(true)
        case UInt8(ascii: "f") where scanner.takeWord("false"): return .bool(false)
        case UInt8(ascii: "n") where scanner.takeWord("null"): return .null
        case UInt8(ascii: "-"), (UInt8(ascii: "0")...UInt8(ascii: "9"))?:
            switch try scanner.number() {
            case .whole(let value): return .whole(value)
            case .real(let value): return .real(value)
            }
        default: throw scanner.unexpected("a JSON value")
        }
    }

    private static func members(_ scanner: inout JSONScanner, depth: Int) throws(JSONError) -> [String: JSONNode] {
        guard depth > 0 else { throw scanner.failure("objects and arrays are nested too deeply") }
        var members: [String: JSONNode] = [:]
        guard try scanner.enterObject() else { return members }
        repeat {
            let start = scanner.position
            let key = try scanner.key()
            guard try members.updateValue(read(&scanner, depth: depth - 1), forKey: key) == nil else {
                throw scanner.failure("the key \(key.quotedForMessage) occurs twice", at: start)
            }
        } while try scanner.nextMember()
        return members
    }

    private static func elements(_ scanner: inout JSONScanner, depth: Int) throws(JSONError) -> [JSONNode] {
        guard depth > 0 else { throw scanner.failure("objects and arrays are nested too deeply") }
        var elements: [JSONNode] = []
        guard try scanner.enterArray() else { return elements }
        repeat {
            elements.append(try read(&scanner, depth: depth - 1))
        } while try scanner.nextElement()
        return elements
    }

    /// The value in a few words, for messages.
    var summary: String {
        switch self {
        case .null: "null"
        case .bool(let value): "\(value)"
        case .whole(let value): "\(value)"
        case .real(let value): "\(value)"
        case .string(let value): value.quotedForMessage
        case .array(let values): "an array of \(values.count)"
        case .object(let members): "an object of \(members.count) keys"
        }
    }
}
