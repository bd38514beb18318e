/// Parses tool calls in the markup of DeepSeek-V3.2 and, with `tool_calls` as the name of the block, of V4:
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
/// is not counts as a string (`ToolInvoke`).
///
/// The tools' schemas say how values are typed, where the markup's `string` contradicts them (`ToolInvoke.ValueRule`).
///
/// No text is lost. Only blanks are left out that separate the tags of a block or two calls, or that end the output
/// after a call. An invoke without a name or an end, or with an open parameter at its end, becomes content including
/// its markup; so does a block without an invoke; text between invokes becomes content. A call is reported when it is
/// complete or its values have `ToolInvoke.reportedBytes`, and its arguments from there on as they come. A call that
/// turns out to be malformed before that becomes content, too; after that it is reported as broken, with all of its
/// text and with the part that its arguments do not have.
struct ToolCallParser: Sendable {
    private enum Place {
        case content, block, invoke
    }

    private let block: DSMLBlock
    private let types: ToolParameterTypes
    private var place = Place.content
    /// The invoke being read.
    private var invoke = ToolInvoke(name: nil, isInBlock: false)
    private var callCount = 0
    /// True if only blanks have followed the last call, while content is read.
    private var isAfterCall = false
    /// Undecided text, which begins at `start`; before `scanned` there is no tag.
    private var held: [UInt8] = []
    private var start = 0
    private var scanned = 0
    /// The index in `held` of the text that becomes content if the invoke is malformed. It is not used in content.
    private var raw = 0
    /// True if the block being read has contained a complete call.
    private var hasCall = false
    /// True if the block being read has contained a malformed invoke.
    private var hasBroken = false
    /// True if the text since the last tag of the block has words, so that its blanks count.
    private var hasWords = false

    init(_ block: DSMLBlock, _ types: ToolParameterTypes) {
        self.block = block
        self.types = types
    }

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

    /// Ends the output.
    ///
    /// - Parameter isCut: whether the output was cut off. A call whose name is known then counts as begun, and an
    ///   unfinished tag before a name is left out.
    mutating func finish(isCut: Bool) -> [OutputParser.Event] {
        var events: [OutputParser.Event] = []
        let isInTag = isCut && endsInTag
        switch place {
        case .content:
            // The line breaks before the tag are its own.
            let end = isInTag ? contentEnd(before: scanned) : held.count
            if !isAfterCall || !isBlank(start..<end) { emit(upTo: end, &events) }
        case .block where hasCall: emitWords(upTo: isInTag ? scanned : held.count, &events)
        case .block where isCut && (isInTag || isBlank(start..<held.count)): break
        case .block: keepAsText(upTo: held.count, &events)
        case .invoke:
            let end = isCut ? max(scanned, start) : held.count
            feedValue(upTo: end, &events)
            if !invoke.isInValue { invoke.body += held[start..<end] }
            breakInvoke(upTo: held.count, isCut: isCut, &events)
        }
        self = ToolCallParser(block, types)
        return events
    }

    /// True if the undecided text ends in a tag that is not complete. In a block and behind a call a bracket suffices.
    private var endsInTag: Bool {
        let rest = held[max(scanned, start)...]
        switch place {
        case .content where !isAfterCall: return DSMLTag.beginsWithMark(rest)
        default: return rest.first == UInt8(ascii: "<")
        }
    }

    /// Handles the text up to the next tag, and the tag.
    ///
    /// - Returns: whether there was a tag.
    private mutating func step(_ events: inout [OutputParser.Event]) -> Bool {
        scanned = max(scanned, start)
        switch DSMLTag.first(in: held, from: scanned, block: block) {
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
        if place == .block { emitWords(upTo: end, &events) }
        switch place {
        case .content:
            // Before `scanned` there are only blanks.
            if isAfterCall, isBlank(min(max(start, scanned), end)..<end) { return }
            isAfterCall = false
            emit(upTo: end - lineBreaks(before: end), &events)
        case .block: break
        case .invoke where !invoke.isInValue:
            invoke.body += held[start..<end]
            start = end
        case .invoke: feedValue(upTo: end, &events)
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

    /// Emits the text between the tags of a block as content if it has words. Words before the first invoke show that
    /// this is no block: its tag is content, like all that follows.
    private mutating func emitWords(upTo end: Int, _ events: inout [OutputParser.Event]) {
        // Before `scanned` there are only blanks.
        guard hasWords || !isBlank(min(max(start, scanned), end)..<end) else { return }
        guard hasCall || hasBroken else {
            start = raw
            place = .content
            return
        }
        hasWords = true
        emit(upTo: end, &events)
        raw = start
    }

    /// Emits everything from `raw` on as content.
    private mutating func keepAsText(upTo end: Int, _ events: inout [OutputParser.Event]) {
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
        hasWords = false
        self.place = place
    }

    private mutating func leaveBlock(_ tag: DSMLTag, _ events: inout [OutputParser.Event]) {
        if !hasCall { keepAsText(upTo: tag.range.upperBound, &events) }
        pass(tag, to: .content)
        isAfterCall = hasCall
        (hasCall, hasBroken) = (false, false)
    }

    private mutating func handleInContent(_ tag: DSMLTag, _ events: inout [OutputParser.Event]) {
        guard tag.kind == .openBlock || tag.kind == .openInvoke else {
            scanned = tag.range.lowerBound + 1
            return
        }
        // Blanks between calls are left out, unless the second is none.
        if !isAfterCall || !isBlank(start..<tag.range.lowerBound) {
            emit(upTo: contentEnd(before: tag.range.lowerBound), &events)
        }
        isAfterCall = false
        raw = start
        if tag.kind == .openBlock { pass(tag, to: .block) } else { open(tag, isInBlock: false, &events) }
    }

    private mutating func handleInBlock(_ tag: DSMLTag, _ events: inout [OutputParser.Event]) {
        emitWords(upTo: tag.range.lowerBound, &events)
        if place == .content { return handleInContent(tag, &events) }
        switch tag.kind {
        case .openInvoke: open(tag, isInBlock: true, &events)
        case .closeBlock: leaveBlock(tag, &events)
        default: pass(tag, to: .block)
        }
    }

    private mutating func handleInInvoke(_ tag: DSMLTag, _ events: inout [OutputParser.Event]) {
        if invoke.isInValue {
            feedValue(upTo: tag.range.lowerBound, &events)
            switch tag.kind {
            case .closeParameter:
                events.closeValue(of: &invoke, of: callCount)
                pass(tag, to: .invoke)
            case .closeInvoke, .closeBlock: breakInvoke(at: tag, &events)
            // Within a value, only closing tags count.
            default: scanned = tag.range.lowerBound + 1
            }
            return
        }
        invoke.body += held[start..<tag.range.lowerBound]
        switch tag.kind {
        case .openParameter:
            openValue(tag, &events)
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
        let name = tag.attribute("name")
        invoke = ToolInvoke(name: name, isInBlock: isInBlock, known: name.flatMap(types.parameters(of:)))
        pass(tag, to: .invoke)
        if tag.isSelfClosing { close(with: tag, &events) }
    }

    private mutating func close(with tag: DSMLTag, _ events: inout [OutputParser.Event]) {
        guard events.close(&invoke, of: callCount) else { return breakInvoke(at: tag, &events) }
        // Not between the parts of the arguments: some interfaces show an answer as a list of items in order.
        if invoke.isCall, let words = invoke.words { events.append(.content(words)) }
        callCount += 1
        hasCall = true
        pass(tag, to: invoke.isInBlock ? .block : .content)
        raw = start
        if !invoke.isInBlock {
            isAfterCall = true
            (hasCall, hasBroken) = (false, false)
        }
    }

    private mutating func openValue(_ tag: DSMLTag, _ events: inout [OutputParser.Event]) {
        let mark = tag.attribute("string")
        events.open(
            tag.attribute("name"), isString: mark == "true" ? true : mark == "false" ? false : nil, of: &invoke,
            of: callCount)
    }

    /// Reads the open value up to `end`.
    private mutating func feedValue(upTo end: Int, _ events: inout [OutputParser.Event]) {
        guard invoke.isInValue, end > start else { return }
        events.feed(held[start..<end], to: &invoke, of: callCount)
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

    private mutating func breakInvoke(upTo end: Int, isCut: Bool = false, _ events: inout [OutputParser.Event]) {
        let text = text(raw..<end)
        guard events.breakOff(&invoke, of: callCount, isCut: isCut, text) else {
            return keepAsText(upTo: end, &events)
        }
        callCount += 1
        start = end
        raw = end
        hasBroken = true
    }

    /// Returns whether a part of the undecided text is only blanks.
    private func isBlank(_ range: Range<Int>) -> Bool {
        held[range].allSatisfy(\.isBlank)
    }
}
