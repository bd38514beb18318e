import JSON

/// Finds tool calls in the markup of GLM-4.7 and GLM-5:
///
///     <tool_call>weather<arg_key>city</arg_key><arg_value>Paris</arg_value></tool_call>
///
/// The markup does not say whether a value is a string, so the tools' schemas do: a value that may only be a string is
/// kept as it is, others are read as JSON and are strings where they are none (`ToolParameterTypes`).
///
/// No text is lost: a call without a name or an end, or with something else where a tag must be, comes back as content,
/// markup and all. A string of `ToolCallParser.streamedBytes` or more is handed on as it comes; a call that breaks after
/// that is reported as broken, with its text. Line breaks before a call and blanks after one are markup.
struct GLMToolCallParser: Sendable {
    private enum Place {
        case content, name, arguments, key
        /// A key has been read, and its value has not begun.
        case gap(ToolInvoke.Parameter)
        case value(ToolInvoke.Parameter)
    }

    private enum Tag: String, CaseIterable {
        case openCall = "<tool_call>"
        case closeCall = "</tool_call>"
        case openKey = "<arg_key>"
        case closeKey = "</arg_key>"
        case openValue = "<arg_value>"
        case closeValue = "</arg_value>"
    }

    private static let tags = Tag.allCases.map { (tag: $0, bytes: Array($0.rawValue.utf8)) }

    /// The text by which tool calls begin.
    static let opening = Tag.openCall.rawValue

    private let types: ToolParameterTypes
    private var place = Place.content
    private var invoke = ToolInvoke(name: nil, isInBlock: false)
    private var callCount = 0
    /// True after a call, when blanks are left out until other text follows.
    private var skipsBlanks = false
    /// The text that is not handed on: in a call, all of it with the line breaks before it.
    private var held: [UInt8] = []
    /// The index in `held` of what has not been read; before `scanned` there is no tag.
    private var at = 0
    private var scanned = 0

    init(_ types: ToolParameterTypes) { self.types = types }

    mutating func feed(_ text: String) -> [OutputParser.Event] {
        held.append(contentsOf: text.utf8)
        var events: [OutputParser.Event] = []
        while step(&events) {}
        return events
    }

    mutating func finish() -> [OutputParser.Event] {
        var events: [OutputParser.Event] = []
        if case .content = place {
            emit(upTo: held.count, &events)
        } else {
            streamValue(upTo: held.count, &events)
            breakCall(upTo: held.count, &events)
        }
        self = GLMToolCallParser(types)
        return events
    }

    /// Handles the text up to the next tag, and the tag.
    ///
    /// - Returns: false if there is no further tag.
    private mutating func step(_ events: inout [OutputParser.Event]) -> Bool {
        if case .content = place, skipsBlanks {
            release(upTo: held.firstIndex { !Self.isBlank($0) } ?? held.count)
            skipsBlanks = held.isEmpty
        }
        let (start, tag) = nextTag()
        if let tag {
            handle(tag, start, &events)
            return true
        }
        scanned = start
        if case .content = place { emit(upTo: start - lineBreaks(before: start), &events) }
        streamValue(upTo: start, &events)
        return false
    }

    /// Returns the next tag and where it begins; without one, the end of the text in which no tag begins.
    private func nextTag() -> (start: Int, tag: Tag?) {
        var from = max(scanned, at)
        while let bracket = held[from...].firstIndex(of: UInt8(ascii: "<")) {
            let rest = held[bracket...]
            if let found = Self.tags.first(where: { rest.starts(with: $0.bytes) }) { return (bracket, found.tag) }
            if Self.tags.contains(where: { $0.bytes.starts(with: rest) }) { return (bracket, nil) }
            from = bracket + 1
        }
        return (held.count, nil)
    }

    private mutating func handle(_ tag: Tag, _ start: Int, _ events: inout [OutputParser.Event]) {
        let text = held[at..<start]
        let isBlank = text.allSatisfy(Self.isBlank)
        let end = start + tag.rawValue.utf8.count
        switch (place, tag) {
        case (.content, .openCall):
            let breaks = lineBreaks(before: start)
            emit(upTo: start - breaks, &events)
            pass(to: breaks + tag.rawValue.utf8.count, .name)
        case (.name, .openKey), (.name, .closeCall):
            invoke = ToolInvoke(name: Self.name(text), isInBlock: false)
            if invoke.name == nil { return breakCall(upTo: end, &events) }
            if tag == .openKey { pass(to: end, .key) } else { closeCall(upTo: end, &events) }
        case (.arguments, .openKey) where isBlank: pass(to: end, .key)
        case (.arguments, .closeCall) where isBlank: closeCall(upTo: end, &events)
        case (.key, .closeKey): pass(to: end, .gap(parameter(Self.trimmed(text))))
        case (.gap(let parameter), .openValue) where isBlank: pass(to: end, .value(parameter))
        case (.value(let parameter), .closeValue):
            streamValue(upTo: start, &events)
            closeValue(parameter, held[at..<start], &events)
            pass(to: end, .arguments)
        case (.value, .closeCall): breakCall(upTo: end, &events)
        // Elsewhere in content and in values, tags are text.
        case (.content, _), (.value, _): scanned = start + 1
        // A call without an end gives way to the next one.
        default: breakCall(upTo: tag == .openCall ? start : end, &events)
        }
    }

    /// Goes on at an index of `held`.
    private mutating func pass(to end: Int, _ next: Place) {
        (at, scanned, place) = (end, end, next)
    }

    /// Removes the beginning of the text.
    private mutating func release(upTo end: Int) {
        held.removeFirst(end)
        (at, scanned) = (max(at - end, 0), max(scanned - end, 0))
    }

    private mutating func emit(upTo end: Int, _ events: inout [OutputParser.Event]) {
        if end > 0 { events.append(.content(String(decoding: held[..<end], as: UTF8.self))) }
        release(upTo: end)
    }

    /// Returns the number of line breaks, at most two, at the end of the text before `end`.
    private func lineBreaks(before end: Int) -> Int {
        held[..<end].suffix(2).reversed().prefix { $0 == UInt8(ascii: "\n") }.count
    }

    private func parameter(_ name: String) -> ToolInvoke.Parameter {
        let kinds = types.kinds(of: name, in: invoke.name ?? "")
        return ToolInvoke.Parameter(name: name.isEmpty ? nil : name, isString: kinds == [.string])
    }

    /// Hands on the open value up to `end` if it is a long string.
    private mutating func streamValue(upTo end: Int, _ events: inout [OutputParser.Event]) {
        guard case .value(let parameter) = place, parameter.isString, parameter.name != nil, let name = invoke.name,
            end > at, invoke.isStreamingValue || end - at >= ToolCallParser.streamedBytes
        else { return }
        if !invoke.isStreaming { events.append(.toolCallStart(index: callCount, name: name)) }
        events.append(.toolCallArguments(index: callCount, invoke.stream(parameter, held[at..<end])))
        at = end
    }

    private mutating func closeValue(
        _ parameter: ToolInvoke.Parameter, _ value: ArraySlice<UInt8>, _ events: inout [OutputParser.Event]
    ) {
        var parameter = parameter
        if let kinds = types.kinds(of: parameter.name ?? "", in: invoke.name ?? ""), kinds.contains(.string),
            let json = try? JSONValue(parsing: String(decoding: value, as: UTF8.self))
        {
            parameter.isString = !kinds.contains(ToolParameterTypes.Kind(of: json)) || json.string != nil
        }
        let more = invoke.close(parameter, value: value)
        if !more.isEmpty { events.append(.toolCallArguments(index: callCount, more)) }
    }

    private mutating func closeCall(upTo end: Int, _ events: inout [OutputParser.Event]) {
        guard let name = invoke.name, let arguments = invoke.arguments else { return breakCall(upTo: end, &events) }
        if !invoke.isStreaming { events.append(.toolCallStart(index: callCount, name: name)) }
        events.append(.toolCallArguments(index: callCount, arguments))
        events.append(.toolCallEnd(index: callCount))
        callCount += 1
        release(upTo: end)
        pass(to: 0, .content)
        skipsBlanks = true
    }

    /// The call is none: its text is content, or broken if a part of it has been handed on.
    private mutating func breakCall(upTo end: Int, _ events: inout [OutputParser.Event]) {
        if invoke.isStreaming {
            events.append(.toolCallBroken(index: callCount, text: String(decoding: held[..<end], as: UTF8.self)))
            callCount += 1
            release(upTo: end)
        } else {
            emit(upTo: end, &events)
        }
        invoke = ToolInvoke(name: nil, isInBlock: false)
        pass(to: 0, .content)
    }

    /// Returns the name of a function; `nil` for a text that can be none.
    private static func name(_ text: ArraySlice<UInt8>) -> String? {
        let name = trimmed(text)
        return name.isEmpty || name.utf8.contains { isBlank($0) || "{}\"<".utf8.contains($0) } ? nil : name
    }

    private static func trimmed(_ text: ArraySlice<UInt8>) -> String {
        let start = text.drop(while: isBlank)
        let end = start.lastIndex { !isBlank($0) }.map { $0 + 1 } ?? start.startIndex
        return String(decoding: start[..<end], as: UTF8.self)
    }

    private static func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || 0x09...0x0D ~= byte }
}

/// The kinds of values that tools' schemas allow for each parameter.
package struct ToolParameterTypes: Sendable {
    enum Kind: Sendable {
        case string, number, boolean, null, array, object

        init(of value: JSONValue) {
            self =
                switch value {
                case .null: .null
                case .bool: .boolean
                case .string: .string
                case .array: .array
                case .object: .object
                default: .number
                }
        }

        init?(named name: String) {
            switch name {
            case "string": self = .string
            case "number", "integer": self = .number
            case "boolean": self = .boolean
            case "null": self = .null
            case "array": self = .array
            case "object": self = .object
            default: return nil
            }
        }
    }

    private var kinds: [String: [String: Set<Kind>]] = [:]

    package init(_ tools: [ChatTool]) {
        for tool in tools {
            for property in tool.function["parameters"]?["properties"]?.object ?? [] {
                kinds[tool.name, default: [:]][property.key] = Self.kinds(property.value)
            }
        }
    }

    /// Returns the kinds that a parameter may have; `nil` if the schema does not say.
    func kinds(of parameter: String, in tool: String) -> Set<Kind>? { kinds[tool]?[parameter] }

    private static func kinds(_ schema: JSONValue) -> Set<Kind>? {
        let names = schema["type"]?.array ?? schema["type"].map { [$0] }
        if let names { return Set(names.compactMap { $0.string.flatMap(Kind.init(named:)) }) }
        if let values = schema["enum"]?.array { return Set(values.map(Kind.init(of:))) }
        if let value = schema["const"] { return [Kind(of: value)] }
        guard let options = schema["anyOf"]?.array ?? schema["oneOf"]?.array else { return nil }
        let kinds = options.map(kinds)
        return kinds.contains(nil) ? nil : kinds.reduce(into: []) { $0.formUnion($1 ?? []) }
    }
}
