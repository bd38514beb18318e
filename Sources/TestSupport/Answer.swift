package import Inference

/// What the events of a request say, without what depends on the requests before it, such as the number of cached
/// tokens: equal answers have the same bits.
package struct Answer: Equatable, Sendable {
    package var tokens: [TokenLogProbs] = []
    package var prompt: [TokenLogProbs] = []
    package var finish: FinishReason?
    /// The reason why the request failed, if it did.
    package var failure: String?

    package init(failure: String? = nil) { self.failure = failure }

    package mutating func add(_ event: GenerationEvent) {
        switch event {
        case .promptLogProbs(let scores): prompt += scores
        case .token(let token): tokens.append(token)
        case .finished(let reason, _): finish = reason
        case .failed(let reason): failure = reason
        }
    }
}

/// Reads the events of generations to their ends.
@inline(never)
package func answers(_ generations: [Generation]) async -> [Answer] {
    var answers: [Answer] = []
    for generation in generations {
        answers.append(await generation.events.reduce(into: Answer()) { $0.add($1) })
    }
    return answers
}
