import Inference
import Tokenization

/// Turns the tokens of one generation into text: whole characters only, and nothing of a stop string.
struct TextAssembler {
    private let promptTokens: Int
    private let stopTokens: Set<Int32>
    private var decoder: StreamingDecoder
    private var stops: StopStrings
    /// The search for the string after which stop strings count; `nil` once it was found, or if they always count.
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
        stops = StopStrings(request.stopStrings)
        gate = request.stopsAfter.isEmpty || request.stopStrings.isEmpty ? nil : StopStrings(request.stopsAfter)
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
    private mutating func search(_ text: String) -> StopStrings.Result {
        var (open, text) = ("", text)
        if gate != nil {
            let passed = gate!.feed(text)
            guard let mark = passed.match else { return passed }
            gate = nil
            (open, text) = (passed.text + mark, passed.rest)
        }
        var found = stops.feed(text, mayStop: completionTokens > minTokens)
        found.text = open + found.text
        return found
    }

    private mutating func finish(_ reason: FinishReason, _ usage: Usage) -> TextFinish {
        isFinished = true
        // Text that was held back can still complete a stop string.
        let found = search(decoder.finish())
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
