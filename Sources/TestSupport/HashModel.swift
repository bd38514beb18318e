package import Inference

/// A model without arithmetic, for tests of scheduling: the next token is a hash of all tokens before it. So an answer
/// changes if a token is lost, repeated, or another request's.
package struct HashModel {
    package let vocabularySize: Int

    package init(vocabularySize: Int) { self.vocabularySize = vocabularySize }

    package func choose(
        after prefix: some Collection<Int32>, forbidden: Set<Int32>, topCount: Int?
    ) -> TokenLogProbs {
        var token = Int32(hash(prefix) % UInt64(vocabularySize))
        while forbidden.contains(token) { token = (token + 1) % Int32(vocabularySize) }
        return score(token, after: prefix, topCount: topCount)
    }

    package func score(_ token: Int32, after prefix: some Collection<Int32>, topCount: Int?) -> TokenLogProbs {
        guard let topCount else { return TokenLogProbs(token: token) }
        let bits = hash(Array(prefix) + [token])
        let top = (0..<topCount).map { ScoredToken(token: Int32($0), logProb: -Float(bits >> 50) - Float($0)) }
        return TokenLogProbs(token: token, logProb: -Float(bits >> 44), top: top)
    }

    /// Returns the answer to a request that runs alone, with `limit` new tokens at most.
    package func answer(
        _ request: GenerationRequest, limit: Int
    ) -> (scores: [TokenLogProbs], tokens: [TokenLogProbs], reason: FinishReason) {
        let topCount = request.logProbs?.topCount
        var (scores, answer): ([TokenLogProbs], [TokenLogProbs]) = ([], [])
        if let start = request.logProbs?.promptStart {
            for index in start..<request.prompt.count {
                let token = request.prompt[index]
                scores.append(
                    index == 0
                        ? TokenLogProbs(token: token)
                        : score(token, after: request.prompt.prefix(index), topCount: topCount))
            }
        }
        var tokens = request.prompt
        var reason = FinishReason.length
        while answer.count < limit, reason == .length {
            let early = answer.count < request.sampling.minNewTokens
            let next = choose(after: tokens, forbidden: early ? request.sampling.stopTokens : [], topCount: topCount)
            answer.append(next)
            tokens.append(next.token)
            if request.sampling.stopTokens.contains(next.token) { reason = .stop(token: next.token) }
        }
        return (scores, answer, reason)
    }

    /// Returns the drafts of the tokens after a text, of which about two in three are right, until `isEnough` holds for
    /// the drafts.
    package func drafts(behind text: [Int32], until isEnough: ([Int32]) -> Bool) -> [Int32] {
        var (text, drafts) = (text, [Int32]())
        repeat {
            let right = choose(after: text, forbidden: [], topCount: nil).token
            drafts.append(text.reduce(Int(right), { $0 + Int($1) }) % 3 == 0 ? right ^ 1 : right)
            text.append(drafts.last!)
        } while !isEnough(drafts)
        return drafts
    }

    /// Returns FNV-1a over the tokens, mixed once more.
    private func hash(_ tokens: some Collection<Int32>) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for token in tokens { hash = (hash ^ UInt64(UInt32(bitPattern: token))) &* 0x100_0000_01B3 }
        return (hash ^ (hash >> 29)) &* 0xBF58_476D_1CE4_E5B9
    }
}
