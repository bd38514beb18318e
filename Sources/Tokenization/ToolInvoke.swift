import JSON

/// An invoke element of a tool call that is being parsed: the name of a function and its arguments.
///
/// Values are read piece by piece, and each piece returns the text of the arguments that it decides. Strings are
/// decided at once. Another value may be JSON or a text that is not: that is decided by the first byte with which no
/// JSON continues, by the first `decisionBytes`, or by its end.
struct ToolInvoke: Sendable {
    /// The size in bytes from which the beginning of a JSON text counts as JSON.
    static let decisionBytes = 128

    /// The ways in which the text of a value may be meant.
    struct ValueRule: Sendable {
        /// The kinds that the value may have if its text is JSON; `nil` for any.
        var kinds: Set<ToolParameterTypes.Kind>?

        static let string = ValueRule(kinds: [.string])
        static let json = ValueRule(kinds: nil)

        /// Returns whether JSON of a kind is meant as JSON, rather than as a string that looks like it.
        func isJSON(_ kind: ToolParameterTypes.Kind) -> Bool {
            guard let kinds, kinds.contains(.string) else { return true }
            return kind != .string && kinds.contains(kind)
        }
    }

    private enum Form {
        case undecided, string, json
    }

    /// A parameter whose value is being read.
    private struct Parameter {
        let name: String
        let rule: ValueRule
        var form: Form
        /// The value so far, unless it is a string.
        var text: [UInt8] = []
        var prefix = JSONPrefix()
        /// True if a part of the value was returned.
        var hasBegun = false
    }

    /// The name of the function; `nil` if the tag has none, so that the invoke is malformed.
    let name: String?
    let isInBlock: Bool
    /// The text outside parameters.
    var body: [UInt8] = []
    /// True if a parameter is being read.
    private(set) var isInValue = false
    /// True if the invoke has a parameter with a name, so that it counts as a call from there on.
    private(set) var isCall = false
    private var parameter: Parameter?
    private var count = 0
    /// True if a parameter without a name, or a long value that began as JSON and is none, was read: the arguments are
    /// no JSON object then.
    private var isBroken = false

    init(name: String?, isInBlock: Bool) {
        self.name = name
        self.isInBlock = isInBlock
    }

    /// Begins a parameter.
    ///
    /// - Parameter name: its name; `nil` if its tag has none.
    mutating func open(_ name: String?, _ rule: ValueRule) {
        isInValue = true
        guard let name else {
            isBroken = true
            return
        }
        if self.name != nil, !isBroken { isCall = true }
        parameter = Parameter(name: name, rule: rule, form: rule.kinds == [.string] ? .string : .undecided)
    }

    /// Reads a piece of the open value, and returns the text of the arguments that it decides.
    mutating func feed(_ piece: ArraySlice<UInt8>) -> String {
        guard isCall, !isBroken, var open = parameter, !piece.isEmpty else { return "" }
        defer { parameter = open }
        if open.form != .string { open.text += piece }
        guard open.form == .undecided else { return begin(&open) + Self.written(piece, open.form) }
        for place in (open.text.count - piece.count)..<open.text.count where open.form == .undecided {
            if !open.prefix.feed(open.text[place]) {
                open.form = .string
            } else if place + 1 == Self.decisionBytes {
                open.form = open.rule.isJSON(ToolParameterTypes.Kind(beginningOf: open.text)) ? .json : .string
            }
        }
        guard open.form != .undecided else { return "" }
        return begin(&open) + Self.written(open.text[...], open.form)
    }

    /// Ends the open value, and returns the rest of its text.
    mutating func closeValue() -> String {
        isInValue = false
        defer { parameter = nil }
        guard isCall, !isBroken, var open = parameter else { return "" }
        switch open.form {
        case .string: return begin(&open) + "\""
        case .json:
            isBroken = (try? JSONValue(parsing: open.text)) == nil
            return ""
        case .undecided:
            let value = try? JSONValue(parsing: open.text)
            open.form = value.map { open.rule.isJSON(ToolParameterTypes.Kind(of: $0)) } ?? false ? .json : .string
            return begin(&open) + Self.written(open.text[...], open.form) + (open.form == .string ? "\"" : "")
        }
    }

    /// Returns the text before a value, the first time that it is called for it.
    private mutating func begin(_ open: inout Parameter) -> String {
        guard !open.hasBegun else { return "" }
        open.hasBegun = true
        count += 1
        return (count == 1 ? "{" : ", ") + JSONValue.string(open.name).pythonText + ": "
            + (open.form == .string ? "\"" : "")
    }

    /// Returns a part of a value as it stands in JSON.
    private static func written(_ text: ArraySlice<UInt8>, _ form: Form) -> String {
        let text = String(decoding: text, as: UTF8.self)
        return form == .string ? String(JSONValue.string(text).pythonText.dropFirst().dropLast()) : text
    }

    /// The rest of the arguments: the end of the JSON object of all parameters, or the object that the invoke contains
    /// instead of parameters. It is `nil` if the invoke is malformed. Parameters with equal names are equal members, of
    /// which JSON's readers take the last.
    var rest: String? {
        if isBroken { return nil }
        if isCall { return "}" }
        guard body.contains(where: { $0 > 0x20 }) else { return "{}" }
        guard let value = try? JSONValue(parsing: body), value.object != nil else { return nil }
        return value.pythonText
    }

    /// The text beside parameters; `nil` if it is blank.
    var words: String? {
        guard isCall, body.contains(where: { $0 > 0x20 }) else { return nil }
        return String(decoding: body, as: UTF8.self)
    }
}

/// The events of an invoke, which every markup of tool calls has.
extension [OutputParser.Event] {
    /// Adds a piece of a call's arguments, to the piece before it if there is one.
    mutating func append(arguments text: String, of index: Int) {
        guard !text.isEmpty else { return }
        if case .toolCallArguments(index, let before)? = last {
            self[count - 1] = .toolCallArguments(index: index, before + text)
        } else {
            append(.toolCallArguments(index: index, text))
        }
    }

    /// Begins a parameter of the invoke of a call, which is reported with the first one.
    mutating func open(
        _ name: String?, _ rule: ToolInvoke.ValueRule, of invoke: inout ToolInvoke, of index: Int
    ) {
        let isFirst = !invoke.isCall
        invoke.open(name, rule)
        if isFirst, invoke.isCall, let name = invoke.name { append(.toolCallStart(index: index, name: name)) }
    }

    /// Ends the invoke of a call.
    ///
    /// - Returns: False if it is malformed; nothing is reported then.
    mutating func close(_ invoke: ToolInvoke, of index: Int) -> Bool {
        guard let name = invoke.name, let rest = invoke.rest else { return false }
        if !invoke.isCall { append(.toolCallStart(index: index, name: name)) }
        append(arguments: rest, of: index)
        append(.toolCallEnd(index: index))
        return true
    }

    /// Reports an invoke that was cut off before its first parameter, if its name is known.
    ///
    /// - Parameter text: Its markup.
    /// - Returns: False if it is no call, or one that was reported.
    mutating func cut(_ invoke: ToolInvoke, of index: Int, _ text: @autoclosure () -> String) -> Bool {
        guard !invoke.isCall, let name = invoke.name else { return false }
        append(.toolCallStart(index: index, name: name))
        append(.toolCallBroken(index: index, text: text()))
        return true
    }
}

extension UInt8 {
    /// True for the bytes that separate the tags of tool calls.
    var isBlank: Bool { self == 0x20 || 0x09...0x0D ~= self }
}
