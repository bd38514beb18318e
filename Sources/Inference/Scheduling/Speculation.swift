/// Speculative decoding: the checkpoint's next-token block drafts the tokens that follow, and the next step verifies
/// them all at once.
///
/// A draft token is accepted exactly when the model, with its own sampling parameters and its own draw for that
/// position, samples the same token. So the text is the same, token by token, as without speculation; rejected drafts
/// only cost time. Drafts are sampled from the block's logits by the same rule and with the same draws, which at
/// temperatures above 0 makes more of them acceptable than the block's most likely tokens would be.
extension StepPlan.Chunk {
    /// The speculation of a chunk tells how the next-token block takes part in it.
    package struct Speculation: Sendable, Equatable {
        /// The number of draft tokens at the end of the chunk.
        package var drafted: Int
        /// The token after the chunk; `nil` where the chunk's last row samples it, or there is none.
        package var next: Int32?
        /// The number of tokens to draft after those that this chunk samples, as far as the chunk's pages reach.
        package var ahead: Int

        package init(drafted: Int = 0, next: Int32? = nil, ahead: Int = 0) {
            self.drafted = drafted
            self.next = next
            self.ahead = ahead
        }
    }

    /// The chunk's draft tokens.
    package var drafts: ArraySlice<Int32> { tokens.suffix(speculation?.drafted ?? 0) }

    /// The rows whose logits a token is sampled from: that of the last known token, and those of the drafts.
    package var sampledRows: Range<Int> {
        sample == nil ? tokens.count..<tokens.count : tokens.count - 1 - drafts.count..<tokens.count
    }

    /// Returns how the `index`-th of `sampledRows` samples if the drafts up to it are accepted.
    package func sample(at index: Int) -> StepPlan.Sample { sample!.following(drafts.prefix(index)) }

    /// Returns how many of the tokens sampled from `sampledRows` are valid: those up to and including the first that
    /// differs from its draft token, or that could not be sampled (`nil`).
    package func acceptedCount(_ chosen: [Int32?]) -> Int {
        let accepted = zip(chosen, drafts).prefix { $0 == $1 }.count
        return min(accepted + 1, chosen.count)
    }
}

extension StepPlan.Sample {
    /// Returns how to sample the token that follows after `tokens` have been generated.
    package func following(_ tokens: some Collection<Int32>) -> StepPlan.Sample {
        var later = self
        later.position += tokens.count
        later.minTokensRemaining = max(0, minTokensRemaining - tokens.count)
        if parameters.penalizes || isConstrained { later.generated += tokens }
        return later
    }
}
