extension Sampler {
    /// Of the tokens with any weight, keeps the fewest best whose amounts add up to `target` or more, and gives the
    /// others no weight. A token's amount is its weight, or 1. Best is by `adjusted`, equal ones by smaller id.
    ///
    /// No sort: the logit at the border is found digit by digit (a radix select, four passes over the row whatever is
    /// in it). Amounts are added in Float64: within a digit by ascending id, then from the largest digit down.
    mutating func keepBest(until target: Double, byWeight: Bool) {
        // The digits so far of the border, and the sum of the amounts of all logits above it.
        var border: UInt32 = 0
        var above = 0.0
        for shift in stride(from: 24, through: 0, by: -8) as StrideThrough<UInt32> {
            addAmounts(of: border, at: shift, byWeight: byWeight)
            border = border << 8 | UInt32(borderDigit(until: target, above: &above))
        }
        for token in 0..<vocabularySize where weights[token] > 0 {
            let key = Self.key(adjusted[token])
            if key > border { continue }
            if key == border, above < target {
                above += byWeight ? Double(weights[token]) : 1
            } else {
                weights[token] = 0
            }
        }
    }

    /// Fills `buckets` with the amounts of the tokens whose leading digits are `border`, by the digit at `shift`.
    private mutating func addAmounts(of border: UInt32, at shift: UInt32, byWeight: Bool) {
        for digit in buckets.indices { buckets[digit] = 0 }
        for token in 0..<vocabularySize where weights[token] > 0 {
            let digits = Self.key(adjusted[token]) >> shift
            guard digits >> 8 == border else { continue }
            buckets[Int(digits & 0xFF)] += byWeight ? Double(weights[token]) : 1
        }
    }

    /// The digit at which the amounts, from the largest digit down, reach `target`. Where rounding keeps them just
    /// below it, the last digit that has any.
    private func borderDigit(until target: Double, above: inout Double) -> Int {
        var found = buckets.count - 1
        var before = above
        var sum = above
        for digit in buckets.indices.reversed() where buckets[digit] > 0 {
            found = digit
            before = sum
            sum += buckets[digit]
            if sum >= target { break }
        }
        above = before
        return found
    }

    /// Ordered as the logits are, and equal for equal ones, also for the two zeros.
    private static func key(_ logit: Float) -> UInt32 {
        let bits = (logit + 0).bitPattern
        return bits >> 31 == 1 ? ~bits : bits | 1 << 31
    }
}
