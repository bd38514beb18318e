import Inference
import Tokenization

/// Turns the tokens of one generation into text: whole characters only, and nothing of a stop string.
struct TextAssembler {
    private let promptTokens: Int
    private let stopTokens: Set<Int32>
    private var decoder: StreamingDecoder
    private var stops: StopStrings
    private let stopStrings: [String]
    /// The marks of the model's reasoning.
    private let reasoning: TextRequest.Reasoning?
    /// The end of the output so far that may begin the model's reasoning; `nil` once it is known whether it does.
    private var opening: String?
    /// The search for the end of reasoning, after which stop strings count; `nil` outside reasoning.
    private var gate: StopStrings?
    /// The number of tokens at the beginning in whose text no stop string counts.
    private let minTokens: Int
    private let includesStopString: Bool
    private var completionTokens = 0
    /// True if the last event was returned.
    private(set) var isFinished = false

    init(_ request: TextRequest, stopTokens: Set<Int32>, tokenizer: Tokenizer) {
        promptTokens = request.prompt.count
        self.stopTokens = stopTokens
        decoder = StreamingDecoder(
            tokenizer, skippingSpecialTokens: request.skipsSpecialTokens, keeping: request.keptTokens)
        stopStrings = request.stopStrings
        stops = StopStrings(stopStrings)
        reasoning = stopStrings.isEmpty ? nil : request.reasoning
        if let reasoning { if reasoning.isOpen { gate = StopStrings(reasoning.ends) } else { opening = "" } }
        minTokens = request.sampling.minNewTokens
        includesStopString = request.includesStopString
    }

    mutating func feed(_ event: GenerationEvent) -> [TextEvent] {
        switch event {
        case .promptLogProbs(let scores): return [.promptScores(scores)]
        case .token(let token): return feed(token)
        case .finished(let reason, let usage): return [.finished(finish(reason, usage))]
        case .failed(let message):
            isFinished = true
            return [.failed(message)]
        }
    }

    private mutating func feed(_ token: TokenLogProbs) -> [TextEvent] {
        completionTokens += 1
        // A stop token counts as a token and is scored, but is text only if the request asks for it.
        if stopTokens.contains(token.token), !includesStopString { return [.token(token, text: "")] }
        let found = search(decoder.feed(token.token))
        guard let match = found.match else { return [.token(token, text: found.text)] }
        isFinished = true
        let finish = TextFinish(
            reason: .stopString(match), promptTokens: promptTokens, completionTokens: completionTokens)
        return [.token(token, text: found.text + (includesStopString ? match : "")), .finished(finish)]
    }

    /// Searches for a stop string where one counts: after the first `minTokens` tokens, and after the end of the
    /// model's reasoning.
    ///
    /// - Parameter isLast: whether no text follows.
    private mutating func search(_ text: String, isLast: Bool = false) -> StopStrings.Result {
        var (open, text) = ("", text)
        if opening != nil { (open, text) = readOpening(text, isLast: isLast) }
        if gate != nil {
            let passed = gate!.feed(text)
            guard let mark = passed.match else {
                return StopStrings.Result(text: open + passed.text, match: nil, rest: passed.rest)
            }
            gate = nil
            (open, text) = (open + passed.text + mark, passed.rest)
        }
        var found = stops.feed(text, mayStop: completionTokens > minTokens)
        found.text = open + found.text
        return found
    }

    /// Reads the beginning of the output, where the model may open its reasoning after blanks.
    ///
    /// - Returns: text that is known to be outside any stop string, and the text in which to search.
    private mutating func readOpening(_ text: String, isLast: Bool) -> (settled: String, text: String) {
        guard let reasoning, let held = opening else { return ("", text) }
        let (whole, mark) = (held + text, reasoning.beginning.utf8)
        let inner = whole.utf8.drop { $0 == 0x20 || 0x09...0x0D ~= $0 }
        // Blanks are searched at once, since they may be a stop string.
        if inner.isEmpty, !isLast {
            opening = ""
            return ("", whole)
        }
        if inner.count < mark.count, mark.starts(with: inner), !isLast {
            opening = String(decoding: inner, as: UTF8.self)
            return ("", String(decoding: whole.utf8.dropLast(inner.count), as: UTF8.self))
        }
        opening = nil
        guard inner.starts(with: mark) else { return ("", whole) }
        gate = StopStrings(reasoning.ends)
        // A stop string does not continue from the blanks before the mark into the answer.
        let settled = stops.finish()
        stops = StopStrings(stopStrings)
        return (settled, whole)
    }

    private mutating func finish(_ reason: FinishReason, _ usage: Usage) -> TextFinish {
        isFinished = true
        // Text that was held back can still complete a stop string.
        let found = search(decoder.finish(), isLast: true)
        let rest = found.match.map { includesStopString ? $0 : "" } ?? (gate?.finish() ?? "") + stops.finish()
        var finish = TextFinish(
            reason: .length, text: found.text + rest,
            promptTokens: usage.promptTokens, completionTokens: usage.completionTokens,
            cachedTokens: usage.cachedTokens, speculation: usage.speculation)
        switch (found.match, reason) {
        case (let match?, _): finish.reason = .stopString(match)
        case (nil, .stop(let token)): finish.reason = .stopToken(token)
        case (nil, .length): finish.reason = .length
        case (nil, .abort): finish.reason = .abort
        }
        return finish
    }
}
