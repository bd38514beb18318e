import JSON

/// Finds tool calls in DeepSeek-V3.2's markup:
///
///     <｜DSML｜function_calls>
///     <｜DSML｜invoke name="weather">
///     <｜DSML｜parameter name="city" string="true">Paris</｜DSML｜parameter>
///     </｜DSML｜invoke>
///     </｜DSML｜function_calls>
///
/// Well-formed calls are read as DeepSeek's own parser reads them: the two line breaks before a block belong to it,
/// strings are kept up to the last blank, other values are JSON. Models also make mistakes, which the parser tolerates:
/// an invoke may occur without a block, close itself or hold one JSON object; text and more blocks may follow a block;
/// a value that should be JSON and is not counts as a string; the last of equal parameters counts. An invoke without a
/// name or an end, or with an open parameter at its end, is dropped.
struct ToolCallParser: Sendable {
    private enum Place {
        case content, block, invoke
    }

    private var place = Place.content
    /// Is the invoke being read.
    private var invoke = ToolInvoke(name: nil, isInBlock: false)
    private var callCount = 0
    /// Is true after a call, when blanks are left out until other text follows.
    private var skipsBlanks = false
    /// Holds undecided text, which begins at `start`; before `scanned` there is no tag.
    private var held: [UInt8] = []
    private var start = 0
    private var scanned = 0

    mutating func feed(_ text: String) -> [OutputParser.Event] {
        held.append(contentsOf: text.utf8)
        var events: [OutputParser.Event] = []
        while step(&events) {}
        held.removeFirst(start)
        scanned -= start
        start = 0
        return events
    }

    mutating func finish() -> [OutputParser.Event] {
        var events: [OutputParser.Event] = []
        if place == .content {
            // Beyond `scanned` there is at most the beginning of a tag.
            let isCut = DSMLTag.isMarked(held[scanned...])
            emit(upTo: isCut ? contentEnd(before: scanned) : held.count, &events)
        }
        self = ToolCallParser()
        return events
    }

    /// Handles the text up to the next tag, and the tag.
    ///
    /// - Returns: whether there was a tag.
    private mutating func step(_ events: inout [OutputParser.Event]) -> Bool {
        if place == .content, skipsBlanks {
            while start < held.count, isBlank(held[start]) { start += 1 }
            skipsBlanks = start == held.count
        }
        scanned = max(scanned, start)
        switch DSMLTag.first(in: held, from: scanned) {
        case .none(let end):
            settleText(upTo: end, &events)
            scanned = end
            return false
        case .found(let tag):
            switch place {
            case .content: handleInContent(tag, &events)
            case .block: handleInBlock(tag, &events)
            case .invoke: handleInInvoke(tag, &events)
            }
            return true
        }
    }

    /// Handles the text before `end`, which contains no tag.
    private mutating func settleText(upTo end: Int, _ events: inout [OutputParser.Event]) {
        switch place {
        case .content: emit(upTo: end - lineBreaks(before: end), &events)
        case .block: start = end
        case .invoke where invoke.open == nil:
            invoke.body += held[start..<end]
            start = end
        case .invoke: break
        }
    }

    /// Returns the number of line breaks, at most two, at the end of the undecided text before `end`.
    private func lineBreaks(before end: Int) -> Int {
        var count = 0
        while count < 2, end - count > start, held[end - count - 1] == UInt8(ascii: "\n") { count += 1 }
        return count
    }

    /// Returns the end of the content before a tag at `place`: two line breaks belong to the tag.
    private func contentEnd(before place: Int) -> Int {
        lineBreaks(before: place) == 2 ? place - 2 : place
    }

    private mutating func emit(upTo end: Int, _ events: inout [OutputParser.Event]) {
        if end > start { events.append(.content(String(decoding: held[start..<end], as: UTF8.self))) }
        start = end
    }

    /// Continues after `tag`.
    private mutating func pass(_ tag: DSMLTag, to place: Place) {
        start = tag.range.upperBound
        scanned = start
        self.place = place
        if place == .content { skipsBlanks = true }
    }

    private mutating func handleInContent(_ tag: DSMLTag, _ events: inout [OutputParser.Event]) {
        guard tag.kind == .openBlock || tag.kind == .openInvoke else {
            scanned = tag.range.lowerBound + 1
            return
        }
        emit(upTo: contentEnd(before: tag.range.lowerBound), &events)
        start = tag.range.lowerBound
        if tag.kind == .openBlock { pass(tag, to: .block) } else { open(tag, isInBlock: false, &events) }
    }

    private mutating func handleInBlock(_ tag: DSMLTag, _ events: inout [OutputParser.Event]) {
        switch tag.kind {
        case .openInvoke: open(tag, isInBlock: true, &events)
        case .closeBlock: pass(tag, to: .content)
        default: pass(tag, to: .block)
        }
    }

    private mutating func handleInInvoke(_ tag: DSMLTag, _ events: inout [OutputParser.Event]) {
        if let parameter = invoke.open {
            switch tag.kind {
            case .closeParameter:
                invoke.set(parameter, value: held[start..<tag.range.lowerBound])
                pass(tag, to: .invoke)
            case .closeInvoke: pass(tag, to: invoke.isInBlock ? .block : .content)
            case .closeBlock: pass(tag, to: .content)
            // Within a value only closing tags count.
            default: scanned = tag.range.lowerBound + 1
            }
            return
        }
        invoke.body += held[start..<tag.range.lowerBound]
        switch tag.kind {
        case .openParameter:
            invoke.open = ToolInvoke.Parameter(
                name: tag.attribute("name"), isString: tag.attribute("string") == "true")
            pass(tag, to: .invoke)
        case .closeInvoke: close(with: tag, &events)
        case .openInvoke: open(tag, isInBlock: invoke.isInBlock, &events)
        case .openBlock: pass(tag, to: .block)
        case .closeBlock: pass(tag, to: .content)
        case .closeParameter: pass(tag, to: .invoke)
        }
    }

    private mutating func open(_ tag: DSMLTag, isInBlock: Bool, _ events: inout [OutputParser.Event]) {
        invoke = ToolInvoke(name: tag.attribute("name"), isInBlock: isInBlock)
        if tag.isSelfClosing { close(with: tag, &events) } else { pass(tag, to: .invoke) }
    }

    private mutating func close(with tag: DSMLTag, _ events: inout [OutputParser.Event]) {
        if let name = invoke.name, let arguments = invoke.arguments {
            events.append(.toolCall(index: callCount, name: name, arguments: arguments))
            callCount += 1
        }
        pass(tag, to: invoke.isInBlock ? .block : .content)
    }

    private func isBlank(_ byte: UInt8) -> Bool {
        byte == 0x20 || 0x09...0x0D ~= byte
    }
}

/// Is one invoke: a function's name and its arguments.
private struct ToolInvoke {
    struct Parameter {
        var name: String?
        var isString: Bool
    }

    /// Is `nil` if the tag had no name; then the invoke will be dropped.
    let name: String?
    let isInBlock: Bool
    /// Holds the text outside parameters.
    var body: [UInt8] = []
    /// Is the parameter whose value is being read.
    var open: Parameter?
    /// Holds names and values, the values as JSON text.
    private var parameters: [(name: String, json: String)] = []

    init(name: String?, isInBlock: Bool) {
        self.name = name
        self.isInBlock = isInBlock
    }

    /// Closes the open parameter with its value.
    mutating func set(_ parameter: Parameter, value: ArraySlice<UInt8>) {
        open = nil
        guard let name = parameter.name else { return }
        let text = String(decoding: value, as: UTF8.self)
        let isJSON = !parameter.isString && (try? JSONValue(parsing: text)) != nil
        let json = isJSON ? text : JSONValue.string(text).pythonText
        if let place = parameters.firstIndex(where: { $0.name.utf8.elementsEqual(name.utf8) }) {
            parameters[place].json = json
        } else {
            parameters.append((name, json))
        }
    }

    /// Is the JSON object of all parameters, or the one in their place; `nil` if there is other text.
    var arguments: String? {
        guard parameters.isEmpty, body.contains(where: { $0 > 0x20 }) else {
            let members = parameters.map { JSONValue.string($0.name).pythonText + ": " + $0.json }
            return "{" + members.joined(separator: ", ") + "}"
        }
        guard let value = try? JSONValue(parsing: body), value.object != nil else { return nil }
        return value.pythonText
    }
}
