/// Finds tool calls in the markup of GLM-4.7 and GLM-5:
///
///     <tool_call>weather<arg_key>city</arg_key><arg_value>Paris</arg_value></tool_call>
///
/// The markup does not say whether a value is a string, so the tools' schemas do: a value that may only be a string is
/// kept as it is, others are read as JSON and are strings where they are none (`ToolParameterTypes`).
///
/// No text is lost: a call without a name or an end, or with something else where a tag must be, comes back as content,
/// markup and all; so does a call that breaks before so much of its values has come that it is reported
/// (`ToolInvoke.reportedBytes`). One that breaks after that is reported as broken, with its text. Two line breaks before
/// a call are markup, and so are blanks that separate calls or end the output after one.
struct GLMToolCallParser: Sendable {
    private enum Place {
        case content, name, arguments, key
        /// A key has been read, and its value has not begun.
        case gap(key: String)
        case value
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
    /// True if only blanks have followed the last call.
    private var isAfterCall = false
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

    /// Ends the output.
    ///
    /// - Parameter isCut: whether the output was cut off. A call whose name is known then counts as begun, and the
    ///   unfinished markup before a name is left out.
    mutating func finish(isCut: Bool) -> [OutputParser.Event] {
        var events: [OutputParser.Event] = []
        switch place {
        case .content:
            let end = isCut && endsInOpening ? scanned - lineBreaks(before: scanned) : held.count
            if isAfterCall, held[..<end].allSatisfy(\.isBlank) { break }
            emit(upTo: end, &events)
        case .name where isCut && (Self.name(held[at..<scanned]) != nil || held[at..<scanned].allSatisfy(\.isBlank)):
            break
        default:
            let end = isCut ? scanned : held.count
            feedValue(upTo: end, &events)
            breakCall(at: end, upTo: held.count, isCut: isCut, &events)
        }
        self = GLMToolCallParser(types)
        return events
    }

    /// True if content ends in an incomplete `<tool_call>`. Behind a call a bracket suffices.
    private var endsInOpening: Bool {
        let rest = held[scanned...]
        return Self.opening.utf8.starts(with: rest) && (isAfterCall ? !rest.isEmpty : UnfinishedMarkup.isCertain(rest))
    }

    /// Handles the text up to the next tag, and the tag.
    ///
    /// - Returns: false if there is no further tag.
    private mutating func step(_ events: inout [OutputParser.Event]) -> Bool {
        let (start, tag) = nextTag()
        if let tag {
            handle(tag, start, &events)
            return true
        }
        let before = held.count
        if case .content = place { emitText(upTo: start, &events) }
        // What was emitted is no longer there.
        scanned = start - (before - held.count)
        feedValue(upTo: scanned, &events)
        return false
    }

    /// Hands on content, without the line breaks and blanks at its end that may belong to a call.
    private mutating func emitText(upTo end: Int, _ events: inout [OutputParser.Event]) {
        if isAfterCall {
            // Before `scanned` there are only blanks.
            guard held[min(scanned, end)..<end].contains(where: { !$0.isBlank }) else { return }
            isAfterCall = false
        }
        emit(upTo: end - lineBreaks(before: end), &events)
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
        let isBlank = text.allSatisfy(\.isBlank)
        let end = start + tag.rawValue.utf8.count
        switch (place, tag) {
        case (.content, .openCall):
            let length = held.count - end
            emitText(upTo: start, &events)
            isAfterCall = false
            pass(to: held.count - length, .name)
        case (.name, .openKey), (.name, .closeCall):
            let name = Self.name(text)
            invoke = ToolInvoke(name: name, isInBlock: false, known: name.flatMap(types.parameters(of:)))
            if name == nil { return breakCall(at: start, upTo: end, &events) }
            if tag == .openKey { pass(to: end, .key) } else { closeCall(at: start, upTo: end, &events) }
        case (.arguments, .openKey) where isBlank: pass(to: end, .key)
        case (.arguments, .closeCall) where isBlank: closeCall(at: start, upTo: end, &events)
        case (.key, .closeKey): pass(to: end, .gap(key: Self.trimmed(text)))
        case (.gap(let key), .openValue) where isBlank:
            events.open(key.isEmpty ? nil : key, isString: nil, of: &invoke, of: callCount)
            pass(to: end, .value)
        case (.value, .closeValue):
            feedValue(upTo: start, &events)
            events.closeValue(of: &invoke, of: callCount)
            pass(to: end, .arguments)
        case (.value, .closeCall):
            feedValue(upTo: start, &events)
            breakCall(at: start, upTo: end, &events)
        // Elsewhere in content and in values, tags are text.
        case (.content, _), (.value, _): scanned = start + 1
        // A call without an end gives way to the next one.
        default: breakCall(at: start, upTo: tag == .openCall ? start : end, &events)
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

    /// Reads the open value up to `end`.
    private mutating func feedValue(upTo end: Int, _ events: inout [OutputParser.Event]) {
        guard case .value = place, end > at else { return }
        events.feed(held[at..<end], to: &invoke, of: callCount)
        at = end
    }

    /// Ends a call with the tag from `start` to `end`.
    private mutating func closeCall(at start: Int, upTo end: Int, _ events: inout [OutputParser.Event]) {
        guard events.close(&invoke, of: callCount) else { return breakCall(at: start, upTo: end, &events) }
        callCount += 1
        release(upTo: end)
        invoke = ToolInvoke(name: nil, isInBlock: false)
        pass(to: 0, .content)
        isAfterCall = true
    }

    /// The call is none: its text is content, or broken if a part of it has been handed on.
    ///
    /// - Parameters:
    ///   - start: The end of its text, and the beginning of the tag that shows this.
    ///   - end: The end of that tag, unless it begins something else.
    private mutating func breakCall(
        at start: Int, upTo end: Int, isCut: Bool = false, _ events: inout [OutputParser.Event]
    ) {
        let unread = unread(upTo: start, isCut: isCut)
        let text = String(decoding: held[..<end], as: UTF8.self)
        if events.breakOff(&invoke, of: callCount, isCut: isCut, text, unread: unread) {
            callCount += 1
            release(upTo: end)
        } else {
            emit(upTo: end, &events)
        }
        invoke = ToolInvoke(name: nil, isInBlock: false)
        pass(to: 0, .content)
    }

    /// Returns the text that belongs to no value. The part of a key that a limit has cut off is left out.
    private func unread(upTo end: Int, isCut: Bool) -> String {
        let text = String(decoding: held[min(at, end)..<end], as: UTF8.self)
        switch place {
        case .arguments: return text.utf8.allSatisfy(\.isBlank) ? "" : text
        case .key where !isCut: return text
        case .gap(let key) where !isCut: return key + text
        default: return ""
        }
    }

    /// Returns the name of a function; `nil` for a text that can be none.
    private static func name(_ text: ArraySlice<UInt8>) -> String? {
        let name = trimmed(text)
        return name.isEmpty || name.utf8.contains { $0.isBlank || "{}\"<".utf8.contains($0) } ? nil : name
    }

    private static func trimmed(_ text: ArraySlice<UInt8>) -> String {
        let start = text.drop(while: \.isBlank)
        let end = start.lastIndex { !$0.isBlank }.map { $0 + 1 } ?? start.startIndex
        return String(decoding: start[..<end], as: UTF8.self)
    }
}
