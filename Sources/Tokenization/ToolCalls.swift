/// Parses tool calls in DeepSeek-V3.2's markup:
///
///     <｜DSML｜function_calls>
///     <｜DSML｜invoke name="weather">
///     <｜DSML｜parameter name="city" string="true">Paris</｜DSML｜parameter>
///     </｜DSML｜invoke>
///     </｜DSML｜function_calls>
///
/// Well-formed calls are parsed as DeepSeek's own parser does: the two line breaks before a block belong to it, strings
/// keep all their blanks, and other values are JSON. Deviations are accepted: an invoke may occur without a block,
/// close itself or contain one JSON object; text and further blocks may follow a block; a value that should be JSON and
/// is not counts as a string; the last of several equal parameters counts.
///
/// No text is lost. An invoke without a name or an end, or with an open parameter at its end, becomes content including
/// its markup, and so does text between invokes. A string of `streamedBytes` or more is streamed while it is generated;
/// a call that turns out to be malformed after that is reported as broken, with its text.
struct ToolCallParser: Sendable {
    private enum Place {
        case content, block, invoke
    }

    /// The size in bytes from which a string value is streamed. Calls with shorter values are reported when they are
    /// complete.
    static let streamedBytes = 128

    private var place = Place.content
    /// The invoke being read.
    private var invoke = ToolInvoke(name: nil, isInBlock: false)
    private var callCount = 0
    /// Whether blanks are left out until other text follows, as they are after a call.
    private var skipsBlanks = false
    /// Undecided text, which begins at `start`; before `scanned` there is no tag.
    private var held: [UInt8] = []
    private var start = 0
    private var scanned = 0
    /// The index in `held` of the text that becomes content if the invoke is malformed. It is not used in content.
    private var raw = 0
    /// Whether the block being read has contained a complete call.
    private var hasCall = false
    /// Whether the block being read has contained a malformed invoke.
    private var hasBroken = false

    mutating func feed(_ text: String) -> [OutputParser.Event] {
        held.append(contentsOf: text.utf8)
        var events: [OutputParser.Event] = []
        while step(&events) {}
        let settled = place == .content ? start : min(raw, start)
        held.removeFirst(settled)
        scanned -= settled
        start -= settled
        raw -= settled
        return events
    }

    mutating func finish() -> [OutputParser.Event] {
        var events: [OutputParser.Event] = []
        switch place {
        case .content: emit(upTo: held.count, &events)
        case .block where hasCall: emitWords(upTo: held.count, &events)
        case .block: giveBack(upTo: held.count, &events)
        case .invoke:
            streamValue(upTo: held.count, &events)
            breakInvoke(upTo: held.count, &events)
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
        case .block: emitWords(upTo: end, &events)
        case .invoke where invoke.open == nil:
            invoke.body += held[start..<end]
            start = end
        case .invoke: streamValue(upTo: end, &events)
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
        if end > start { events.append(.content(text(start..<end))) }
        start = max(start, end)
    }

    /// Emits the text between invokes as content, without blanks at its end.
    private mutating func emitWords(upTo end: Int, _ events: inout [OutputParser.Event]) {
        // Before `scanned` there are only blanks.
        let unseen = min(max(start, scanned), end)
        guard let last = held[unseen..<end].lastIndex(where: { !isBlank($0) }) else { return }
        emit(upTo: last + 1, &events)
        raw = start
    }

    /// Emits everything from `raw` on as content.
    private mutating func giveBack(upTo end: Int, _ events: inout [OutputParser.Event]) {
        start = raw
        emit(upTo: end, &events)
        raw = end
        hasBroken = true
    }

    private func text(_ range: Range<Int>) -> String { String(decoding: held[range], as: UTF8.self) }

    /// Continues after `tag`.
    private mutating func pass(_ tag: DSMLTag, to place: Place) {
        start = tag.range.upperBound
        scanned = start
        self.place = place
    }

    private mutating func leaveBlock(_ tag: DSMLTag, _ events: inout [OutputParser.Event]) {
        if hasBroken, !hasCall { giveBack(upTo: tag.range.upperBound, &events) }
        pass(tag, to: .content)
        skipsBlanks = !hasBroken || hasCall
        (hasCall, hasBroken) = (false, false)
    }

    private mutating func handleInContent(_ tag: DSMLTag, _ events: inout [OutputParser.Event]) {
        guard tag.kind == .openBlock || tag.kind == .openInvoke else {
            scanned = tag.range.lowerBound + 1
            return
        }
        emit(upTo: contentEnd(before: tag.range.lowerBound), &events)
        raw = start
        if tag.kind == .openBlock { pass(tag, to: .block) } else { open(tag, isInBlock: false, &events) }
    }

    private mutating func handleInBlock(_ tag: DSMLTag, _ events: inout [OutputParser.Event]) {
        emitWords(upTo: tag.range.lowerBound, &events)
        switch tag.kind {
        case .openInvoke: open(tag, isInBlock: true, &events)
        case .closeBlock: leaveBlock(tag, &events)
        default: pass(tag, to: .block)
        }
    }

    private mutating func handleInInvoke(_ tag: DSMLTag, _ events: inout [OutputParser.Event]) {
        if let parameter = invoke.open {
            streamValue(upTo: tag.range.lowerBound, &events)
            switch tag.kind {
            case .closeParameter:
                let more = invoke.close(parameter, value: held[start..<tag.range.lowerBound])
                if !more.isEmpty { events.append(.toolCallArguments(index: callCount, more)) }
                pass(tag, to: .invoke)
            case .closeInvoke: breakInvoke(at: tag, &events)
            case .closeBlock: breakInvoke(at: tag, &events)
            // Within a value, only closing tags count.
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
        case .openInvoke, .openBlock:
            // An invoke without an end ends where the next one begins.
            let isInBlock = invoke.isInBlock || tag.kind == .openBlock
            breakInvoke(upTo: tag.range.lowerBound, &events)
            if tag.kind == .openInvoke { open(tag, isInBlock: isInBlock, &events) } else { pass(tag, to: .block) }
        case .closeBlock: breakInvoke(at: tag, &events)
        case .closeParameter: pass(tag, to: .invoke)
        }
    }

    private mutating func open(_ tag: DSMLTag, isInBlock: Bool, _ events: inout [OutputParser.Event]) {
        invoke = ToolInvoke(name: tag.attribute("name"), isInBlock: isInBlock)
        pass(tag, to: .invoke)
        if tag.isSelfClosing { close(with: tag, &events) }
    }

    private mutating func close(with tag: DSMLTag, _ events: inout [OutputParser.Event]) {
        guard let name = invoke.name, let arguments = invoke.arguments else { return breakInvoke(at: tag, &events) }
        if let words = invoke.words { events.append(.content(words)) }
        if !invoke.isStreaming { events.append(.toolCallStart(index: callCount, name: name)) }
        events.append(.toolCallArguments(index: callCount, arguments))
        events.append(.toolCallEnd(index: callCount))
        callCount += 1
        hasCall = true
        pass(tag, to: invoke.isInBlock ? .block : .content)
        raw = start
        if !invoke.isInBlock {
            skipsBlanks = true
            (hasCall, hasBroken) = (false, false)
        }
    }

    /// Streams the open value up to `end` if it is long enough.
    private mutating func streamValue(upTo end: Int, _ events: inout [OutputParser.Event]) {
        guard let parameter = invoke.open, parameter.isString, let name = invoke.name, parameter.name != nil else {
            return
        }
        guard end > start, invoke.isStreamingValue || end - start >= Self.streamedBytes else { return }
        if !invoke.isStreaming { events.append(.toolCallStart(index: callCount, name: name)) }
        events.append(.toolCallArguments(index: callCount, invoke.stream(parameter, held[start..<end])))
        start = end
    }

    /// Ends a malformed invoke with `tag`.
    private mutating func breakInvoke(at tag: DSMLTag, _ events: inout [OutputParser.Event]) {
        if tag.kind == .closeBlock {
            breakInvoke(upTo: tag.range.lowerBound, &events)
            leaveBlock(tag, &events)
            return
        }
        breakInvoke(upTo: tag.range.upperBound, &events)
        pass(tag, to: invoke.isInBlock ? .block : .content)
        if !invoke.isInBlock { (hasCall, hasBroken) = (false, false) }
    }

    private mutating func breakInvoke(upTo end: Int, _ events: inout [OutputParser.Event]) {
        guard invoke.isStreaming else { return giveBack(upTo: end, &events) }
        events.append(.toolCallBroken(index: callCount, text: text(raw..<end)))
        callCount += 1
        start = end
        raw = end
        hasBroken = true
    }

    private func isBlank(_ byte: UInt8) -> Bool {
        byte == 0x20 || 0x09...0x0D ~= byte
    }
}
