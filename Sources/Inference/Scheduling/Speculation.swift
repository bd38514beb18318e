/// Speculative decoding: the checkpoint's next-token block guesses the tokens that follow, and the next step computes
/// them all at once.
///
/// A guess is right exactly when the model, with its own sampling parameters and its own draw for that position, chooses
/// the same token. So the text is the same, token by token, as without speculation, whatever is guessed; guesses that
/// are wrong cost time and nothing else. They are made by the same rule of choice and the same draws from the block's
/// logits, which makes them right more often than its best token would be when the temperature is not 0.
extension StepPlan.Chunk {
    /// How the next-token block takes part.
    package struct Speculation: Sendable, Equatable {
        /// How many of the chunk's last tokens are guesses.
        package var drafted: Int
        /// The token that follows the chunk; `nil` where the chunk's last row chooses it, or there is none.
        package var next: Int32?
        /// How many tokens to guess behind those that this chunk chooses, as far as the chunk's pages reach.
        package var ahead: Int

        package init(drafted: Int = 0, next: Int32? = nil, ahead: Int = 0) {
            self.drafted = drafted
            self.next = next
            self.ahead = ahead
        }
    }

    /// The tokens that are guesses.
    package var drafts: ArraySlice<Int32> { tokens.suffix(speculation?.drafted ?? 0) }

    /// The rows whose logits choose a token: the last known one, and those of the guesses.
    package var sampledRows: Range<Int> {
        sample == nil ? tokens.count..<tokens.count : tokens.count - 1 - drafts.count..<tokens.count
    }

    /// How the `index`-th of `sampledRows` chooses, if the guesses up to it are right.
    package func sample(at index: Int) -> StepPlan.Sample { sample!.following(drafts.prefix(index)) }

    /// How many of the tokens that `sampledRows` chose count: up to the first that is not what was guessed, or that
    /// could not be chosen (`nil`).
    package func acceptedCount(_ chosen: [Int32?]) -> Int {
        let right = zip(chosen, drafts).prefix { $0 == $1 }.count
        return min(right + 1, chosen.count)
    }
}

extension StepPlan.Sample {
    /// How to choose the token that comes `tokens.count` positions later, after these.
    package func following(_ tokens: some Collection<Int32>) -> StepPlan.Sample {
        var later = self
        later.position += tokens.count
        later.minTokensRemaining = max(0, minTokensRemaining - tokens.count)
        if parameters.penalizes || isConstrained { later.generated += tokens }
        return later
    }
}
