package import Parallelism
package import Tensors

/// The routed experts of every token of the vocabulary, where a layer chooses experts by token instead of by score.
///
/// It is immutable, so ranks share it.
package final class TokenExperts: @unchecked Sendable {
    /// The experts of all tokens as bits, `[vocabulary, expertsPerToken]`, ascending in each row.
    private let table: View
    private let memory: Buffer

    /// Creates the table.
    ///
    /// - Parameters:
    ///   - numbers: the experts of all tokens, in any order for each token.
    ///   - refuse: called with the first token that has an expert twice, or one that there is not; it must throw.
    package init<Failure>(_ numbers: [Int], _ rule: GateRule, refuse: (Int) throws(Failure) -> Never) throws(Failure) {
        let count = rule.expertsPerToken
        memory = Buffer(bytes: numbers.count * MemoryLayout<Int32>.stride)
        let indices = unsafe Indices(
            memory.pointer.bindMemory(to: Int32.self, capacity: numbers.count), count: numbers.count)
        for token in 0..<numbers.count / count {
            let experts = numbers[token * count..<(token + 1) * count].sorted()
            let areDifferent = zip(experts, experts.dropFirst()).allSatisfy { $0 < $1 }
            guard areDifferent, experts.allSatisfy((0..<rule.experts).contains) else { try refuse(token) }
            for (place, expert) in experts.enumerated() { indices[token * count + place] = Int32(expert) }
        }
        table = indices.bits(columns: count)
    }

    /// Returns a table for dummy weights, in which consecutive tokens have different experts.
    static func dummy(vocabulary: Int, _ rule: GateRule) -> TokenExperts {
        let numbers = (0..<vocabulary * rule.expertsPerToken).map { $0 % rule.experts }
        return TokenExperts(numbers, rule) { token -> Never in preconditionFailure("token \(token)") }
    }

    /// Looks up the experts of tokens, ascending for each token.
    ///
    /// - Parameter chosen: `tokens.count * expertsPerToken`.
    package func experts(of tokens: Indices, _ seat: Seat, into chosen: ComputedIndices) {
        for row in 0..<tokens.count {
            precondition((0..<Int32(table.rows)).contains(tokens[row]), "token \(tokens[row]) of \(table.rows)")
        }
        seat.kernels.copyRows(table, xRows: ComputedIndices(tokens), into: chosen.bits(columns: table.columns))
    }
}
