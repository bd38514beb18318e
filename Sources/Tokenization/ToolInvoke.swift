import JSON

/// An invoke element of a tool call that is being parsed: the name of a function and its arguments.
///
/// Values are read piece by piece, and each piece returns the text of the arguments that it decides. Strings are
/// decided at once. Another value may be JSON or a text that is not: that is decided by the first byte with which no
/// JSON continues, by the first `decisionBytes`, or by its end.
///
/// Some models put all arguments into one parameter, as the text of a JSON object. A first parameter of that name, which
/// the tool does not have, is held back until it is known whether it is the only one.
struct ToolInvoke: Sendable {
    /// The size in bytes from which the beginning of a JSON text counts as JSON.
    static let decisionBytes = 128
    /// The size in bytes of its values from which a call is reported before it is complete. What was reported cannot be
    /// taken back, so a shorter call that turns out to be malformed is text, in a stream too.
    static let reportedBytes = 64
    /// The names of a parameter that may hold all arguments.
    private static let wrappers = ["arguments", "parameters"]

    /// The ways in which the text of a value may be meant.
    struct ValueRule: Sendable {
        /// The kinds that the tool's schema allows; `nil` if it does not say.
        var kinds: Set<ToolParameterTypes.Kind>?
        /// True if the model has marked the value as a string, false if as JSON; `nil` if it has not said.
        var isMarkedString: Bool?

        /// True if the value is a string whatever its text is: the schema allows no other value, or allows strings and
        /// the model says that it is one.
        var isString: Bool {
            isMarkedString == true ? kinds?.contains(.string) ?? true : kinds == [.string] && isMarkedString == nil
        }

        /// Returns whether JSON of a kind is meant as JSON, rather than as a string that looks like it.
        func isJSON(_ kind: ToolParameterTypes.Kind) -> Bool {
            guard let kinds else { return true }
            switch isMarkedString {
            case true?: return kinds.contains(kind)
            case false?: return kinds.contains(kind) || !kinds.contains(.string)
            case nil: return !kinds.contains(.string) || kind != .string && kinds.contains(kind)
            }
        }
    }

    private enum Form {
        case undecided, string, json
        /// The value may be all arguments.
        case wrapper
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
    /// The parameters that the tool's schema names; `nil` if it names none.
    private let known: ToolParameterTypes.Tool?
    /// The text outside parameters.
    var body: [UInt8] = []
    /// True if a parameter is being read.
    private(set) var isInValue = false
    /// True if the invoke has a parameter with a name.
    private(set) var isCall = false
    /// True if the call was reported.
    fileprivate var isReported = false
    /// The beginning of the arguments, until the call is reported.
    fileprivate var unreported = ""
    /// The number of bytes of the values so far.
    private var valueBytes = 0
    /// True if so much of the call is known that it is reported, and it is not known to be malformed.
    fileprivate var isDecided: Bool { isCall && !isBroken && valueBytes >= Self.reportedBytes }
    private var parameter: Parameter?
    /// A complete parameter that may hold all arguments.
    private var wrapper: Parameter?
    private var count = 0
    /// True if a parameter without a name, or a long value that began as JSON and is none, was read: the arguments are
    /// no JSON object then.
    private var isBroken = false
    /// The text of values that the arguments do not have, because they were broken before.
    private var unwritten: [UInt8] = []

    init(name: String?, isInBlock: Bool, known: ToolParameterTypes.Tool? = nil) {
        self.name = name
        self.isInBlock = isInBlock
        self.known = known
    }

    /// Begins a parameter, and returns the text of the arguments that this decides.
    ///
    /// - Parameters:
    ///   - name: its name; `nil` if its tag has none.
    ///   - isString: whether its tag says that the value is a string; `nil` if it does not say.
    mutating func open(_ name: String?, isString: Bool?) -> String {
        isInValue = true
        let before = writeWrapper()
        guard let name else {
            isBroken = true
            return before
        }
        if isBroken { unwritten += name.utf8 }
        if self.name != nil, !isBroken { isCall = true }
        let rule = ValueRule(kinds: known?.kinds(of: name), isMarkedString: isString)
        let form: Form = count == 0 && mayWrap(name) ? .wrapper : rule.isString ? .string : .undecided
        parameter = Parameter(name: name, rule: rule, form: form)
        return before
    }

    /// Reads a piece of the open value, and returns the text of the arguments that it decides.
    mutating func feed(_ piece: ArraySlice<UInt8>) -> String {
        valueBytes += piece.count
        guard isCall, !isBroken, var open = parameter, !piece.isEmpty else {
            unwritten += piece
            return ""
        }
        // Taken out and put back, so that its text grows in place and is not copied for every piece.
        parameter = nil
        defer { parameter = open }
        if open.form != .string { open.text += piece }
        switch open.form {
        case .wrapper: return ""
        case .string, .json: return begin(&open) + Self.written(piece, open.form)
        case .undecided: break
        }
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
        case .undecided: return write(&open)
        case .wrapper:
            wrapper = open
            return ""
        }
    }

    /// Returns a complete value of which nothing was returned.
    private mutating func write(_ open: inout Parameter) -> String {
        let value = open.rule.isString ? nil : try? JSONValue(parsing: open.text)
        open.form = value.map { open.rule.isJSON(ToolParameterTypes.Kind(of: $0)) } ?? false ? .json : .string
        return begin(&open) + Self.written(open.text[...], open.form) + (open.form == .string ? "\"" : "")
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

    // MARK: - All arguments in one parameter

    private func mayWrap(_ name: String) -> Bool {
        known.map { !$0.contains(name) && Self.wrappers.contains(name) } ?? false
    }

    /// Returns a value that holds all arguments: an object of none but the tool's parameters.
    private func arguments(in value: JSONValue?) -> JSONValue? {
        guard let known, let members = value?.object, members.allSatisfy({ known.contains($0.key) }) else { return nil }
        return value
    }

    /// The arguments that the only parameter holds; `nil` if it is an ordinary one.
    private var unwrapped: JSONValue? { wrapper.flatMap { arguments(in: try? JSONValue(parsing: $0.text)) } }

    /// Returns the parameter that was held back, which has turned out to be an ordinary one.
    private mutating func writeWrapper() -> String {
        guard var open = wrapper else { return "" }
        wrapper = nil
        return write(&open)
    }

    // MARK: - End

    /// Ends the invoke, and returns the rest of the arguments: the end of the JSON object of all parameters, or the object
    /// that the invoke contains instead of parameters. It is `nil` if the invoke is malformed. Parameters with equal
    /// names are equal members, of which JSON's readers take the last.
    mutating func finish() -> String? {
        if isBroken { return nil }
        if let unwrapped { return unwrapped.pythonText }
        if isCall { return writeWrapper() + "}" }
        guard body.contains(where: { $0 > 0x20 }) else { return "{}" }
        guard let value = try? JSONValue(parsing: body), let members = value.object else { return nil }
        let inner = members.count == 1 && mayWrap(members[0].key) ? arguments(in: members[0].value) : nil
        return (inner ?? value).pythonText
    }

    /// Ends an invoke that is malformed or was cut off.
    ///
    /// - Returns: The rest of its arguments, as far as they go, and the text that they do not have.
    mutating func breakOff() -> (arguments: String, rest: String) {
        var arguments = ""
        if !isCall, name != nil, Self.beginsObject(body) {
            arguments = String(decoding: body, as: UTF8.self)
            body = []
        } else if isCall, !isBroken {
            arguments = parameter == nil ? unwrapped?.pythonText ?? writeWrapper() : breakOffValue()
        }
        return (arguments, (words ?? "") + String(decoding: unwritten, as: UTF8.self))
    }

    /// Returns the open value and its name, as far as they were not returned.
    private mutating func breakOffValue() -> String {
        guard var open = parameter, !open.hasBegun else { return "" }
        if open.form == .wrapper, Self.beginsObject(open.text) { return String(decoding: open.text, as: UTF8.self) }
        let isString = open.rule.isString || !Self.beginsJSON(open.text)
        open.form = !isString && open.rule.isJSON(ToolParameterTypes.Kind(beginningOf: open.text)) ? .json : .string
        return begin(&open) + Self.written(open.text[...], open.form)
    }

    private static func beginsJSON(_ text: [UInt8]) -> Bool {
        var prefix = JSONPrefix()
        return text.allSatisfy { prefix.feed($0) }
    }

    private static func beginsObject(_ text: [UInt8]) -> Bool {
        text.first { $0 > 0x20 } == UInt8(ascii: "{") && beginsJSON(text)
    }

    /// The text beside parameters; `nil` if it is blank.
    var words: String? {
        guard body.contains(where: { $0 > 0x20 }) else { return nil }
        return String(decoding: body, as: UTF8.self)
    }
}

/// The events of an invoke, which every markup of tool calls has.
extension [OutputParser.Event] {
    /// Adds a piece of a call's arguments, to the piece before it if there is one.
    private mutating func append(arguments text: String, of index: Int) {
        guard !text.isEmpty else { return }
        if case .toolCallArguments(index, let before)? = last {
            self[count - 1] = .toolCallArguments(index: index, before + text)
        } else {
            append(.toolCallArguments(index: index, text))
        }
    }

    /// Reports a call and its arguments so far, unless it was reported.
    private mutating func report(_ invoke: inout ToolInvoke, _ name: String, of index: Int) {
        if invoke.isReported { return }
        invoke.isReported = true
        append(.toolCallStart(index: index, name: name))
        append(arguments: invoke.unreported, of: index)
        invoke.unreported = ""
    }

    /// Adds a piece of the arguments of a call, which is reported once enough of it is known.
    private mutating func append(arguments text: String, of invoke: inout ToolInvoke, of index: Int) {
        if invoke.isReported { return append(arguments: text, of: index) }
        invoke.unreported += text
        if invoke.isDecided, let name = invoke.name { report(&invoke, name, of: index) }
    }

    /// Begins a parameter of the invoke of a call.
    mutating func open(_ name: String?, isString: Bool?, of invoke: inout ToolInvoke, of index: Int) {
        append(arguments: invoke.open(name, isString: isString), of: &invoke, of: index)
    }

    /// Adds a piece of the open value.
    mutating func feed(_ piece: ArraySlice<UInt8>, to invoke: inout ToolInvoke, of index: Int) {
        append(arguments: invoke.feed(piece), of: &invoke, of: index)
    }

    /// Ends the open value.
    mutating func closeValue(of invoke: inout ToolInvoke, of index: Int) {
        append(arguments: invoke.closeValue(), of: &invoke, of: index)
    }

    /// Ends the invoke of a call.
    ///
    /// - Returns: False if it is malformed; nothing is reported then.
    mutating func close(_ invoke: inout ToolInvoke, of index: Int) -> Bool {
        guard let name = invoke.name, let rest = invoke.finish() else { return false }
        report(&invoke, name, of: index)
        append(arguments: rest, of: index)
        append(.toolCallEnd(index: index))
        return true
    }

    /// Ends the invoke of a call that is malformed or was cut off.
    ///
    /// - Parameters:
    ///   - isCut: True if it was cut off: it is then reported as soon as its name is known.
    ///   - text: All of its markup.
    ///   - unread: Text before the end that the invoke was not given.
    /// - Returns: False if it is no call; nothing is reported then.
    mutating func breakOff(
        _ invoke: inout ToolInvoke, of index: Int, isCut: Bool, _ text: String, unread: String = ""
    ) -> Bool {
        guard invoke.isReported || isCut, let name = invoke.name else { return false }
        report(&invoke, name, of: index)
        let (arguments, rest) = invoke.breakOff()
        append(arguments: arguments, of: index)
        append(.toolCallBroken(index: index, text: text, rest: rest + unread))
        return true
    }
}

extension UInt8 {
    /// True for the bytes that separate the tags of tool calls.
    var isBlank: Bool { self == 0x20 || 0x09...0x0D ~= self }
}
