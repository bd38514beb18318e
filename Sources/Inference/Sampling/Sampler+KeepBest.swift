extension Sampler {
    /// Keeps the smallest set of best tokens whose amounts add up to at least `target`, and sets the weights of all
    /// others to 0. Tokens of weight 0 do not take part. A token's amount is its weight, or 1. Tokens are ordered by
    /// `adjusted`, equal ones by smaller id.
    ///
    /// Nothing is sorted: the smallest logit that is kept is found digit by digit (a radix select, with four passes
    /// over the row in any case). Amounts are added in Float64: within a digit by ascending id, then from the largest
    /// digit down.
    mutating func keepBest(until target: Double, byWeight: Bool) {
        // The leading digits of the smallest logit kept, and the sum of the amounts of all larger ones.
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

    /// Adds up the amounts of the tokens whose leading digits are `border` in `buckets`, by their digit at `shift`.
    private mutating func addAmounts(of border: UInt32, at shift: UInt32, byWeight: Bool) {
        for digit in buckets.indices { buckets[digit] = 0 }
        for token in 0..<vocabularySize where weights[token] > 0 {
            let digits = Self.key(adjusted[token]) >> shift
            guard digits >> 8 == border else { continue }
            buckets[Int(digits & 0xFF)] += byWeight ? Double(weights[token]) : 1
        }
    }

    /// Returns the digit at which the amounts, added from the largest digit down, reach `target`. If rounding keeps
    /// their sum just below it, that is the smallest digit with any amount. `above` receives the sum of the amounts of
    /// larger digits.
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

    /// Returns an integer that orders as the logit does, and is equal for both zeros.
    private static func key(_ logit: Float) -> UInt32 {
        let bits = (logit + 0).bitPattern
        return bits >> 31 == 1 ? ~bits : bits | 1 << 31
    }
}
