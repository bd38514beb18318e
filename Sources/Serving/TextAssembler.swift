import Inference
import Tokenization

/// Makes text of one generation's tokens: whole characters only, and nothing of a stop string.
struct TextAssembler {
    private let promptTokens: Int
    private let stopTokens: Set<Int32>
    private var decoder: StreamingDecoder
    private var stops: StopStrings
    private var completionTokens = 0
    /// Set with the last event.
    private(set) var isFinished = false

    init(_ request: TextRequest, stopTokens: Set<Int32>, tokenizer: Tokenizer) {
        promptTokens = request.prompt.count
        self.stopTokens = stopTokens
        decoder = StreamingDecoder(
            tokenizer, skippingSpecialTokens: request.skipsSpecialTokens, keeping: request.keptTokens)
        stops = StopStrings(request.stopStrings)
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
        // A stop token is the last one; it is counted and scored, but it is no text.
        if stopTokens.contains(token.token) { return [.token(token, text: "")] }
        let found = stops.feed(decoder.feed(token.token))
        guard let match = found.match else { return [.token(token, text: found.text)] }
        isFinished = true
        let finish = TextFinish(
            reason: .stopString(match), promptTokens: promptTokens, completionTokens: completionTokens)
        return [.token(token, text: found.text), .finished(finish)]
    }

    private mutating func finish(_ reason: FinishReason, _ usage: Usage) -> TextFinish {
        isFinished = true
        // What was held back can still complete a stop string.
        let found = stops.feed(decoder.finish())
        var finish = TextFinish(
            reason: .length, text: found.text + (found.match == nil ? stops.finish() : ""),
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
