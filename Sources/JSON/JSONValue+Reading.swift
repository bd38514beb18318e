extension JSONValue {
    /// Reads exactly one JSON value by the strict grammar (RFC 8259): no comments, no trailing commas, no `NaN`, no
    /// unescaped control characters, no half surrogates. Time and memory are proportional to the length of the text,
    /// whatever it contains.
    ///
    /// - Parameters:
    ///   - mayContinue: is called repeatedly while a large text is read; reading ends with an error once it returns
    ///     `false`.
    /// - Throws: `JSONError` for anything else, for bytes that are not UTF-8, for a text that exceeds `limits`, and for
    ///   numbers that do not fit a double.
    package init(
        parsing bytes: some Sequence<UInt8>, limits: JSONLimits = JSONLimits(), mayContinue: () -> Bool = { true }
    ) throws(JSONError) {
        var reader = JSONReader(scanner: try JSONScanner(Array(bytes), limits: limits), limits: limits)
        self = try reader.document(mayContinue)
    }

    package init(parsing text: String, limits: JSONLimits = JSONLimits()) throws(JSONError) {
        try self.init(parsing: text.utf8, limits: limits)
    }
}

/// Builds a tree of the tokens that a scanner reads. `limits.maxDepth` bounds the recursion.
private struct JSONReader {
    var scanner: JSONScanner
    let limits: JSONLimits
    private var values = 0
    /// `mayContinue` is called after this many values, which take less than a millisecond.
    private static let slice = 4096

    init(scanner: JSONScanner, limits: JSONLimits) {
        self.scanner = scanner
        self.limits = limits
    }

    mutating func document(_ mayContinue: () -> Bool) throws(JSONError) -> JSONValue {
        let value = try value(depth: limits.maxDepth, mayContinue)
        guard scanner.peek() == nil else { throw scanner.failure("something follows the end of the JSON text") }
        return value
    }

    private mutating func count(_ mayContinue: () -> Bool) throws(JSONError) {
        values += 1
        guard values <= limits.maxValues else { throw scanner.failure("more than \(limits.maxValues) values") }
        if values.isMultiple(of: Self.slice), !mayContinue() { throw scanner.failure("reading was given up") }
    }

    private mutating func value(depth: Int, _ mayContinue: () -> Bool) throws(JSONError) -> JSONValue {
        try count(mayContinue)
        switch scanner.peek() {
        case UInt8(ascii: "{"): return .object(try members(depth: depth, mayContinue))
        case UInt8(ascii: "["): return .array(try elements(depth: depth, mayContinue))
        case UInt8(ascii: "\""): return .string(try scanner.string())
        case UInt8(ascii: "t") where scanner.takeWord("true"): return .bool(true)
        case UInt8(ascii: "f") where scanner.takeWord("false"): return .bool(false)
        case UInt8(ascii: "n") where scanner.takeWord("null"): return .null
        case UInt8(ascii: "-"), (UInt8(ascii: "0")...UInt8(ascii: "9"))?: return .number(try scanner.number())
        default: throw scanner.unexpected("a JSON value")
        }
    }

    private mutating func members(depth: Int, _ mayContinue: () -> Bool) throws(JSONError) -> [JSONMember] {
        guard depth > 0 else { throw tooDeep }
        var list = JSONMemberList()
        guard try scanner.enterObject() else { return [] }
        repeat {
            try count(mayContinue)
            _ = scanner.peek()
            let start = scanner.position
            let key = try scanner.key()
            guard list.count < limits.maxMembers else {
                throw scanner.failure("an object has more than \(limits.maxMembers) members", at: start)
            }
            let place = list.place(of: key)
            if place != nil, limits.duplicateKeys == .refused {
                throw scanner.failure("the key \(key.quotedForMessage) occurs twice", at: start)
            }
            let value: JSONValue
            do throws(JSONError) {
                value = try self.value(depth: depth - 1, mayContinue)
            } catch {
                throw error.inside(member: key)
            }
            if let place { list.replace(at: place, by: value) } else { list.append(JSONMember(key, value)) }
        } while try scanner.nextMember()
        return list.members
    }

    private mutating func elements(depth: Int, _ mayContinue: () -> Bool) throws(JSONError) -> [JSONValue] {
        guard depth > 0 else { throw tooDeep }
        var elements: [JSONValue] = []
        guard try scanner.enterArray() else { return elements }
        repeat {
            do throws(JSONError) {
                elements.append(try value(depth: depth - 1, mayContinue))
            } catch {
                throw error.inside(element: elements.count)
            }
        } while try scanner.nextElement()
        return elements
    }

    private var tooDeep: JSONError {
        scanner.failure("objects and arrays are nested too deeply: more than \(limits.maxDepth) are open at once")
    }
}
